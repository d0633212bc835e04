"""The benchmarks by name, one file each; docs/add_a_benchmark.md says how to add one."""

from ..pair_builder import PairBuilder
from .birds_to_words import BirdsToWords
from .clevr_change import ClevrChange
from .clevr_dc import ClevrDc
from .emu_edit import EmuEdit
from .folder import Folder
from .image_editing_request import ImageEditingRequest
from .instruct_pix2pix import InstructPix2Pix
from .levir_cc import LevirCc
from .magicbrush import MagicBrush
from .photo_edits import PhotoEdits
from .spot_the_diff import SpotTheDiff
from .syned import Syned
from .toy import Toy

BENCHMARKS: dict[str, type[PairBuilder]] = {
    "syned": Syned,
    "emu_edit": EmuEdit,
    "clevr_change": ClevrChange,
    "clevr_dc": ClevrDc,
    "spot_the_diff": SpotTheDiff,
    "image_editing_request": ImageEditingRequest,
    "levir_cc": LevirCc,
    "birds_to_words": BirdsToWords,
    "instruct_pix2pix": InstructPix2Pix,
    "magicbrush": MagicBrush,
    "photo_edits": PhotoEdits,
    "folder": Folder,
    "toy": Toy,
}
