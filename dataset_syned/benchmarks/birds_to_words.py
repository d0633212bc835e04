"""Birds-to-Words: photographs of two birds and paragraphs on how the second differs from the first.

    python -m dataset_syned prepare birds_to_words        # raw files in data/birds_to_words, see BY_HAND

A raw annotation is a line of tab-separated cells, one paragraph, under a header (shortened):

    img1ImgURL                                                 img2ImgURL   split   description
    https://static.inaturalist.org/photos/647514/large.jpg     ..           train   Animal 1 is brown and white. ..

The authors publish texts and URLs only. Photographs are expected in images/ under the photo id that both URLs contain.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..annotations import Located, by_split, check_columns, open_text, read_each
from ..pair_builder import PairBuilder
from ..pairs import BrokenEntry, DataError, RawPair

ANNOTATIONS = "birds-to-words-v1.0.tsv"
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name -> the authors'
COLUMNS = ("img1ObservationURL", "img1ImgURL", "img2ObservationURL", "img2ImgURL", "split", "description")
PHOTO = re.compile(r"/photos/(\d+)")
QUOTED = re.compile(r'"(?:[^"]|"")*"')
EXTENSIONS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def unquoted(text: str) -> str:
    """Return a cell without the quotes of CSV; the `csv` module would join lines from one stray quote to the next."""
    text = text.strip()
    return text[1:-1].replace('""', '"').strip() if QUOTED.fullmatch(text) else text


def photo_id(row: dict[str, str], image: str) -> str:
    """Return the photo id of an image; the last part of its URL is `large.jpg` for many photographs."""
    match = PHOTO.search(row[f"{image}ImgURL"]) or PHOTO.search(row[f"{image}ObservationURL"])
    if not match:
        raise DataError(f"no photo id in {image}ImgURL={row[f'{image}ImgURL']!r}")
    return match[1]


def photo_file(images: Path, photo: str) -> Path:
    """Return the photograph with any usual extension, or the path it should have."""
    candidates = [images / f"{photo}{extension}" for extension in EXTENSIONS]
    return next((path for path in candidates if path.is_file()), candidates[0])


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, str]] | BrokenEntry]:
    """Yield the place and the cells by column of each line."""
    with open_text(path) as file:
        header = file.readline().rstrip("\r\n").split("\t")
        check_columns(path, header, COLUMNS)
        for number, line in enumerate(file, start=2):
            place, cells = f"{str(path)!r}, line {number}", line.rstrip("\r\n").split("\t")
            if len(cells) == len(header):
                yield place, dict(zip(header, map(unquoted, cells), strict=True))
            elif line.strip():
                yield BrokenEntry(DataError(f"{place}: {len(cells)} cells, the header has {len(header)}"))


def read_paragraph(row: dict[str, str]) -> tuple[tuple[str, str], str]:
    """Return the photo ids of a pair and one text."""
    photos = photo_id(row, "img1"), photo_id(row, "img2")
    if not row["description"]:
        raise DataError(f"pair '{photos[0]}-{photos[1]}' has a caption without text")
    return photos, row["description"]


class BirdsToWords(PairBuilder):
    DESCRIPTION = "Birds-to-Words: photographs of two birds, three to ten paragraphs each on how they differ."
    LICENSE = "CC-BY-SA-4.0 (texts); each photograph has its own, often CC-BY-NC"
    HOMEPAGE = "https://github.com/google-research-datasets/birds-to-words"
    CITATION = """@inproceedings{forbes2019neural,
  title={Neural Naturalist: Generating Fine-Grained Image Comparisons},
  author={Forbes, Maxwell and Kaeser-Chen, Christine and Sharma, Piyush and Belongie, Serge},
  booktitle={Conference on Empirical Methods in Natural Language Processing},
  year={2019}
}"""
    BY_HAND = (
        f"Put {ANNOTATIONS} from https://github.com/google-research-datasets/birds-to-words there, and the "
        "photographs of img1ImgURL and img2ImgURL as images/<photo id>.jpg, where the photo id is the number after "
        "/photos/ in the URL. Some URLs are dead: --on-error skip leaves those pairs out."
    )
    EXPECTED = {"default": {"train": 2685, "validation": 325, "test": 337}}

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        """Yield one pair for each two photographs, with the paragraphs of all their lines."""
        # Some pairs are listed twice, hence more paragraphs than the five of one round.
        pairs: dict[tuple[str, str], list[str]] = {}
        for paragraph in read_each(self.listed().get(split, []), read_paragraph):
            if isinstance(paragraph, BrokenEntry):
                yield paragraph
            else:
                pairs.setdefault(paragraph[0], []).append(paragraph[1])
        images = self.root / "images"
        for (first, second), captions in pairs.items():
            yield RawPair(f"{first}-{second}", photo_file(images, first), photo_file(images, second), captions)

    def listed(self) -> dict[str, list[Located | BrokenEntry]]:
        """Return the lines of each split, with their places."""
        return by_split(read_lines(self.require(ANNOTATIONS)), SPLITS)
