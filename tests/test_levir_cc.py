"""LEVIR-CC: pairs come from the annotations, not from the folders, and unchanged pairs are recognised."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dataset_syned.benchmarks.levir_cc import LevirCc
from dataset_syned.pairs import DataError

ANNOTATIONS = LevirCc.ANNOTATIONS
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "levir-cc"
SAME = [
    "there is no difference",
    "the two scenes seem identical",
    "the scene is the same as before",
    "no change has occurred",
    "almost nothing has changed",
]
BUILT = ["a road is built", "some houses appear beside the road", "the forest is gone", "a road", "houses are built"]


def entry(name: str, captions: list[str], tokens: bool = True, **more: Any) -> dict[str, Any]:
    """Return an entry as in the authors' file: `raw` with a blank before and a dot after."""
    split = name.partition("_")[0]
    sentences = [{"raw": f" {text} ."} | ({"tokens": text.split()} if tokens else {}) for text in captions]
    return {"filepath": split, "filename": f"{name}.png", "split": split, "sentences": sentences, **more}


ENTRIES = [
    entry("test_000004", SAME, changeflag=0),
    entry("train_000016", BUILT, changeflag=1),
    entry("train_000001", SAME, tokens=False),  # after 16, without the flag, without tokens
    entry("train_000007", BUILT, tokens=False),
    entry("val_000002", ["nothing to see here"], changeflag=0),
]


def write_tree(root: Path, entries: Any = ENTRIES, annotations: str = ANNOTATIONS) -> Path:
    """Write the authors' files, and an image without an entry, of which the release has many."""
    for name in ("train_000001", "train_000007", "train_000016", "train_000099", "val_000002", "test_000004"):
        for side, color in (("A", "white"), ("B", "black")):
            path = root / "images" / name.partition("_")[0] / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), color).save(path)
    (root / annotations).write_text(json.dumps({"dataset": "LEVIR-CC", "images": entries}))
    return root


def write_tiny(root: Path, broken: bool) -> None:
    write_tree(root, [ENTRIES[1] | {"sentences": 5}] * broken + ENTRIES)


def build(root: Path) -> LevirCc:
    return LevirCc(root=root, cache_dir=str(root / "cache"))


def listed(builder: LevirCc, split: str) -> list[tuple[str, list[str], str]]:
    return [(pair.pair_id, pair.captions, pair.change_type) for pair in builder.raw_pairs(split)]


@pytest.mark.parametrize("annotations", [ANNOTATIONS, f"images/{ANNOTATIONS}"])
def test_pairs_are_those_of_the_annotations(tmp_path: Path, annotations: str) -> None:
    builder = build(write_tree(tmp_path, annotations=annotations))
    assert builder.raw_splits() == ["train", "validation", "test"]
    assert listed(builder, "train") == [
        ("train_000016", BUILT, ""),
        ("train_000001", SAME, "none"),
        ("train_000007", BUILT, ""),
    ]
    assert listed(builder, "validation") == [("val_000002", ["nothing to see here"], "none")]
    assert listed(builder, "test") == [("test_000004", SAME, "none")]


def test_prepared_rows_contain_before_and_after(tmp_path: Path) -> None:
    builder = build(write_tree(tmp_path))
    builder.download_and_prepare()
    rows = builder.as_dataset("validation")
    for column in ("before", "after"):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    folder = tmp_path / "images" / "val"
    assert rows.to_list() == [
        {
            "pair_id": "val_000002",
            "before": {"path": "val_000002.png", "bytes": (folder / "A" / "val_000002.png").read_bytes()},
            "after": {"path": "val_000002.png", "bytes": (folder / "B" / "val_000002.png").read_bytes()},
            "captions": ["nothing to see here"],
            "change_type": "none",
            "provenance": "",
        }
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"filename": None}, r"LevirCCcaptions.json', images\[0\]"),
        ({"filename": "../../../../etc/passwd"}, r"images\[0\]: the name '../../../../etc/passwd' leads out"),
        ({"split": "../train"}, r"images\[0\]: split='../train', use one of train, val, test"),
        ({"sentences": []}, "pair 'train_000016' has no caption"),
        ({"sentences": [{"tokens": []}]}, "pair 'train_000016' has no caption, or one without text"),
        ({"sentences": [{"raw": " . "}]}, "pair 'train_000016' has no caption, or one without text"),
        ({"sentences": [{"text": "a road"}]}, r"images\[0\]: no field 'raw'"),
        ({"sentences": 5}, r"images\[0\]: a field has a wrong type .'int' object is not iterable"),
        ({"changeflag": "yes"}, "changeflag='yes', use 0 or 1"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    builder = build(write_tree(tmp_path, [entry("train_000016", BUILT, changeflag=1) | broken]))
    with pytest.raises(DataError, match=message):
        list(builder.raw_pairs("train"))


def test_missing_fields_and_duplicate_entries_are_named(tmp_path: Path) -> None:
    without = {name: value for name, value in ENTRIES[1].items() if name != "sentences"}
    with pytest.raises(DataError, match=r"images\[0\]: no field 'sentences'"):
        list(build(write_tree(tmp_path, [without])).raw_pairs("train"))
    with pytest.raises(DataError, match="duplicate pair_id 'train_000016' in split 'train'"):
        list(build(write_tree(tmp_path, [ENTRIES[1]] * 2)).raw_pairs("train"))


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="LevirCCcaptions.json is missing in .*lcybuaa/LEVIR-CC"):
        build(tmp_path / "empty").raw_splits()
    write_tree(tmp_path)
    (tmp_path / "images" / "test" / "B" / "test_000004.png").unlink()
    with pytest.raises(DataError) as error:
        build(tmp_path).download_and_prepare()
    assert "pair 'test_000004': image" in str(error.value) and "is missing" in str(error.value)
    (tmp_path / ANNOTATIONS).write_text('{"images": [')
    with pytest.raises(DataError, match="LevirCCcaptions.json' cannot be read as JSON"):
        build(tmp_path).raw_splits()
    (tmp_path / ANNOTATIONS).write_text("[]")
    with pytest.raises(DataError, match="LevirCCcaptions.json' contains a list, expected a JSON object"):
        build(tmp_path).raw_splits()
    (tmp_path / ANNOTATIONS).write_text('{"images": []}')
    with pytest.raises(DataError, match="an annotation of any split is missing in .*lcybuaa/LEVIR-CC"):
        build(tmp_path).raw_splits()


@pytest.fixture(scope="module")
def real_entries() -> list[dict[str, Any]]:
    """Return the real captions, converted to the authors' layout from the copy in shared/."""
    path = REAL / "levir_cc_captions_from_tokens.json"
    if not path.is_file():
        pytest.skip(f"the captions of LEVIR-CC are not in {REAL}")
    captions = json.loads(path.read_text(encoding="utf-8"))["captions"]
    return [entry(name, texts) for name, texts in captions.items()]


def test_counts_of_the_real_annotations(tmp_path: Path, real_entries: list[dict[str, Any]]) -> None:
    (tmp_path / ANNOTATIONS).write_text(json.dumps({"images": real_entries}))
    builder = build(tmp_path)
    change_types = {
        split: Counter(pair.change_type for pair in builder.raw_pairs(split)) for split in builder.raw_splits()
    }
    assert {split: sum(counts.values()) for split, counts in change_types.items()} == builder.EXPECTED["default"]
    assert [change_types[split]["none"] for split in change_types] == [3408, 666, 965]


def test_the_real_example_pair(tmp_path: Path, real_entries: list[dict[str, Any]]) -> None:
    for side in "AB":
        (tmp_path / "images" / "train" / side).mkdir(parents=True)
        shutil.copy(REAL / "example" / side / "train_000016.png", tmp_path / "images" / "train" / side)
    chosen = next(item for item in real_entries if item["filename"] == "train_000016.png")
    (tmp_path / ANNOTATIONS).write_text(json.dumps({"images": [chosen]}))
    builder = build(tmp_path)
    builder.download_and_prepare()
    (row,) = builder.as_dataset("train")
    tokens = json.loads((REAL / "tokens_sample" / "train_000016.txt").read_text())
    assert row["captions"] == [" ".join(sentence[1:-1]) for sentence in tokens]
    assert row["before"].size == row["after"].size == (256, 256) and row["change_type"] == ""
    assert row["before"].tobytes() != row["after"].tobytes()
