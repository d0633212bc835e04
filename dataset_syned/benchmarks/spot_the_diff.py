"""Spot-the-Diff: two frames of a surveillance camera, described by people.

    python -m dataset_syned prepare spot_the_diff        # raw files in data/spot_the_diff, see BY_HAND

A raw annotation is a row of annotations/{train,val,test}.json, one annotator's sentences:

    {"img_id": "400", "sentences": ["two people have moved", "a van is gone"]}

The change type is "none" where all sentences of all annotators say that there is no difference, and empty elsewhere.

`default` is the setting of published tables: the references of a pair are all sentences of all its annotators. In
`multi` each reference is one annotator's sentences as a paragraph. (CARD, github tuyunbin/CARD, scores otherwise: one
reference, the sentences of all annotators together, cut after some 60 words.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotations import are_texts, inside, read_each, read_json, say_no_change
from ..pair_builder import PairBuilder, PairConfig
from ..pairs import NO_CHANGE, BrokenEntry, DataError, RawPair

SPLITS = {  # our name -> the authors' file
    "train": "annotations/train.json",
    "validation": "annotations/val.json",
    "test": "annotations/test.json",
}


def read_answers(path: Path) -> Iterator[tuple[str, list[str]] | BrokenEntry]:
    """Yield the image id and sentences of each row; an id has as many rows as annotators."""
    rows = read_json(path, list)
    return read_each(((f"{str(path)!r}, row {index}", row) for index, row in enumerate(rows)), read_answer)


def read_answer(row: Any) -> tuple[str, list[str]]:
    """Return the image id and the sentences of a row. Raises: DataError that names a missing field."""
    img_id, sentences = (row.get("img_id"), row.get("sentences")) if isinstance(row, dict) else (None, None)
    if not isinstance(img_id, str) or not img_id:
        raise DataError("no 'img_id' that is a string")
    if not sentences or not are_texts(sentences):
        raise DataError(f"id {img_id!r} has no 'sentences' that is a list of strings")
    return img_id, sentences


def written(texts: list[str]) -> list[str]:
    """Return the texts that are not blank, or one blank.

    53, 6 and 7 sentences of train, val and test are blank. The 7 are the only sentences of their pairs, and every
    published reference file keeps them, so that 1,270 ids and 2,107 references are scored. 37 of train's 8,566 pairs
    have no other sentence; they are not prepared.
    """
    return [text for text in texts if text.strip()] or [""]


def single_references(answers: list[list[str]]) -> list[str]:
    """Return each sentence as a reference."""
    return written([sentence for sentences in answers for sentence in sentences])


def multi_references(answers: list[list[str]]) -> list[str]:
    """Return each annotator's sentences as one reference."""
    # Without full stops, as the sentences are: the PTB tokenizer takes eight ends ("isn t.") for abbreviations.
    return written([" ".join(filter(str.strip, sentences)) for sentences in answers])


class SpotTheDiff(PairBuilder):
    BUILDER_CONFIGS = [
        PairConfig(name="default", description="each sentence is a reference"),
        PairConfig(name="multi", description="each annotator's paragraph is a reference"),
    ]
    DESCRIPTION = "Spot-the-Diff: pairs of frames of surveillance cameras, described by people."
    LICENSE = "none stated"
    HOMEPAGE = "https://github.com/harsh19/spot-the-diff"
    CITATION = """@inproceedings{jhamtani2018learning,
  title = {Learning to Describe Differences Between Pairs of Similar Images},
  author = {Jhamtani, Harsh and Berg-Kirkpatrick, Taylor},
  booktitle = {Proceedings of the Conference on Empirical Methods in Natural Language Processing (EMNLP)},
  year = {2018}
}"""
    BY_HAND = (
        "Put the folder data/annotations of https://github.com/harsh19/spot-the-diff there, and next to it "
        "resized_images/ from the archive linked in its README."
    )
    SUBFOLDER = "data"
    BLANK_CAPTIONS = True
    EXPECTED = {
        "default": {"train": 8566, "validation": 1493, "test": 1270},
        "multi": {"train": 8566, "validation": 1493, "test": 1270},
    }

    def raw_splits(self) -> list[str]:
        splits = [split for split, name in SPLITS.items() if (self.folder / name).exists()]
        if not splits:
            raise self.missing(SPLITS["train"])
        return splits

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        answers: dict[str, list[list[str]]] = {}
        for answer in read_answers(self.require(SPLITS[split])):
            if isinstance(answer, BrokenEntry):
                yield answer
            else:
                answers.setdefault(answer[0], []).append(answer[1])
        images = self.folder / "resized_images"
        references = multi_references if self.config.name == "multi" else single_references

        def read(img_id: str) -> RawPair:
            before, after = inside(images, f"{img_id}.png"), inside(images, f"{img_id}_2.png")
            change_type = NO_CHANGE if say_no_change(single_references(answers[img_id])) else ""
            return RawPair(img_id, before, after, references(answers[img_id]), change_type)

        yield from read_each(((f"id {img_id!r}", img_id) for img_id in answers), read)
