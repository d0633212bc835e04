"""CLEVR-DC: drawn scenes that differ by one change or none, seen from a very different viewpoint.

    python -m dataset_syned prepare clevr_dc        # raw files in data/clevr_dc, see BY_HAND

The authors say that there are six types of change, but no file says which pair has which. So the change type is
"none" where all references are sentences that say so, and empty elsewhere. The raw annotations of a pair:

    split.json       {"train": [10, ..], "val": .., "test": ..}
    captions.json    {"10": ["the small ball turned red", ..], ..}
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..annotations import read_each, read_json, say_no_change
from ..pair_builder import PairBuilder
from ..pairs import NO_CHANGE, BrokenEntry, RawPair
from .clevr_change import sentences_of, split_numbers


@dataclass(frozen=True)
class FileLayout:
    """Names of the files, which differ between copies. `key` and `image` are formatted with a pair's number."""

    split: str
    captions: str
    before: str
    after: str
    key: str
    image: str


LAYOUTS = (
    FileLayout("split.json", "captions.json", "bef", "aft", "{}", "{}.png"),  # the authors'
    FileLayout("split_dc.json", "captions_dc.json", "bef", "aft", "{}", "{}.png"),  # as BLIP2IDC's code asks for it
    # Renamed for code that was written for CLEVR-Change (DIRL, NCT).
    FileLayout("splits.json", "change_captions.json", "images", "sc_images", "{:06d}.png", "{:06d}.png"),
)


class ClevrDc(PairBuilder):
    DESCRIPTION = "CLEVR-DC: drawn scenes with one change or none, seen from a very different viewpoint."
    LICENSE = "none stated"
    HOMEPAGE = "https://github.com/hsgkim/clevr-dc"
    CITATION = """@inproceedings{kim2021viewpoint,
  title = {Viewpoint-Agnostic Change Captioning with Cycle Consistency},
  author = {Kim, Hoeseong and Kim, Jongseok and Lee, Hyungseok and Park, Hyunsung and Kim, Gunhee},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year = {2021}
}"""
    BY_HAND = (
        "Put captions.json and split.json of https://github.com/hsgkim/clevr-dc there, and unpack the archives "
        "bef.tar.gz and aft.tar.gz, linked in its bef/README.md and aft/README.md, into bef/ and aft/."
    )
    EXPECTED = {"default": {"train": 40800, "validation": 2400, "test": 4800}}

    def layout(self) -> FileLayout:
        """Return the layout of the raw files. Raises: DataError, with BY_HAND, if no layout fits."""
        for layout in LAYOUTS:
            if (self.root / layout.split).exists() and (self.root / layout.captions).exists():
                return layout
        raise self.missing(f"{LAYOUTS[0].split} with {LAYOUTS[0].captions}")

    def raw_splits(self) -> list[str]:
        return list(split_numbers(self.root / self.layout().split))

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        layout = self.layout()
        path, before, after = (self.root / name for name in (layout.captions, layout.before, layout.after))
        captions = read_json(path, dict)

        def read(number: int) -> RawPair:
            references = sentences_of(captions, layout.key.format(number), path)
            image = layout.image.format(number)
            return RawPair(
                pair_id=str(number),  # the authors' id, also where the files have been renamed
                before=before / image,
                after=after / image,
                captions=references,
                change_type=NO_CHANGE if say_no_change(references) else "",
            )

        numbers = split_numbers(self.root / layout.split).get(split, [])
        return read_each(((f"pair {number}", number) for number in numbers), read)
