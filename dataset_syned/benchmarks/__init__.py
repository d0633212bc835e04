"""The benchmarks by name, one file each; docs/add_a_benchmark.md says how to add one."""

from ..pair_builder import PairBuilder
from .birds_to_words import BirdsToWords
from .clevr_change import ClevrChange
from .clevr_dc import ClevrDc
from .clevr_multi_change import ClevrMultiChange
from .describe_the_difference import DescribeTheDifference
from .diffspot import DiffSpot
from .emu_edit import EmuEdit
from .folder import Folder
from .gpt_image_edit import GptImageEdit
from .hq_edit import HqEdit
from .image_editing_request import ImageEditingRequest
from .img_diff import ImgDiff
from .imgedit import ImgEdit
from .instruct_pix2pix import InstructPix2Pix
from .levir_cc import LevirCc
from .levir_family import DubaiCc, LevirCdc, LevirMci, SecondCc, WhuCdc
from .magicbrush import MagicBrush
from .omnidiff import OmniDiff
from .omniedit import OmniEdit
from .photo_edits import PhotoEdits
from .pico_banana import PicoBanana
from .spot_the_diff import SpotTheDiff
from .spot_the_shift import SpotTheShift
from .syned import Syned
from .toy import Toy
from .ultraedit import UltraEdit
from .vlm_subtlebench import VlmSubtleBench

BENCHMARKS: dict[str, type[PairBuilder]] = {
    "syned": Syned,
    "emu_edit": EmuEdit,
    "clevr_change": ClevrChange,
    "clevr_dc": ClevrDc,
    "spot_the_diff": SpotTheDiff,
    "image_editing_request": ImageEditingRequest,
    "levir_cc": LevirCc,
    "levir_mci": LevirMci,
    "levir_cdc": LevirCdc,
    "whu_cdc": WhuCdc,
    "second_cc": SecondCc,
    "dubai_cc": DubaiCc,
    "birds_to_words": BirdsToWords,
    "vlm_subtlebench": VlmSubtleBench,
    "diffspot": DiffSpot,
    "spot_the_shift": SpotTheShift,
    "clevr_multi_change": ClevrMultiChange,
    "omnidiff": OmniDiff,
    "img_diff": ImgDiff,
    "describe_the_difference": DescribeTheDifference,
    "instruct_pix2pix": InstructPix2Pix,
    "magicbrush": MagicBrush,
    "omniedit": OmniEdit,
    "ultraedit": UltraEdit,
    "hq_edit": HqEdit,
    "gpt_image_edit": GptImageEdit,
    "imgedit": ImgEdit,
    "pico_banana": PicoBanana,
    "photo_edits": PhotoEdits,
    "folder": Folder,
    "toy": Toy,
}
