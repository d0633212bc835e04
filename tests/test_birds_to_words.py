"""Birds-to-Words: one pair for each two photographs in their order, with the paragraphs of all its rows."""

import json
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from dataset_syned.benchmarks.birds_to_words import ANNOTATIONS, BirdsToWords
from dataset_syned.pairs import DataError, RawPair

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "birds-to-words"
HEADER = (
    "img1ObservationURL img1ImgURL img1Species img1Selection img2ObservationURL img2ImgURL img2Species img2Selection "
    "split annN description"
).split()


def record(photo: str) -> str:
    return f"https://www.inaturalist.org/photos/{photo}"


def image(photo: str) -> str:
    return f"https://static.inaturalist.org/photos/{photo}/large.jpg?1444"  # one file name for many photographs


def row(first: str, second: str, split: str, number: int, text: str) -> list[str]:
    left = [record(first), image(first), "Parus major", "base"]
    return [*left, record(second), image(second), "Pica pica", "visual", split, str(number), text]


ROWS = [
    row("12", "7", "train", 1, "Animal 1 is brown. Animal 2 is blue."),
    row("3", "4", "test", 1, "Animal 2 has a longer tail."),
    row("7", "12", "train", 1, "Animal 1 is blue."),  # the reverse order is another pair
    row("12", "7", "train", 2, '"Animal 1 has ""puffy"" feathers, animal 2 has not."'),
    row("3", "9", "val", 1, '"Animal 1" has a stray quote, animal 2 a "crest'),
    row("12", "7", "train", 1, "Listed a second time."),
    row("3", "4", "test", 2, " Animal 1 is much smaller. "),
]


def write_tree(root: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for photo, extension in (("12", "jpg"), ("7", "jpeg"), ("3", "PNG"), ("4", "jpg")):  # 9 is a dead link
        Image.new("RGB", (4, 4), (int(photo), 0, 0)).save(root / "images" / f"{photo}.{extension}")
    (root / ANNOTATIONS).write_text("".join("\t".join(cells) + "\n" for cells in [header, *rows]), encoding="utf-8")
    return root


def write_tiny(root: Path, broken: bool) -> None:
    whole = [cells for cells in ROWS if cells[8] != "val"] + [row("3", "7", "val", 1, "Animal 1 is smaller.")]
    write_tree(root, [["too", "few"]] * broken + whole)


def build(root: Path) -> BirdsToWords:
    return BirdsToWords(root=root, cache_dir=str(root / "cache"))


def test_rows_of_one_pair_are_merged_in_their_order(tmp_path: Path) -> None:
    builder, images = build(write_tree(tmp_path, ROWS)), tmp_path / "images"
    assert builder.raw_splits() == ["train", "validation", "test"]
    blue, brown = images / "7.jpeg", images / "12.jpg"
    paragraphs = [
        "Animal 1 is brown. Animal 2 is blue.",
        'Animal 1 has "puffy" feathers, animal 2 has not.',
        "Listed a second time.",
    ]
    assert list(builder.raw_pairs("train")) == [
        RawPair("12-7", brown, blue, paragraphs),
        RawPair("7-12", blue, brown, ["Animal 1 is blue."]),
    ]
    assert list(builder.raw_pairs("validation")) == [
        RawPair("3-9", images / "3.PNG", images / "9.jpg", ['"Animal 1" has a stray quote, animal 2 a "crest'])
    ]
    assert list(builder.raw_pairs("test")) == [
        RawPair(
            "3-4",
            images / "3.PNG",
            images / "4.jpg",
            ["Animal 2 has a longer tail.", "Animal 1 is much smaller."],
        )
    ]


def test_only_splits_with_rows_are_listed(tmp_path: Path) -> None:
    assert build(write_tree(tmp_path, ROWS[1:2])).raw_splits() == ["test"]


def test_a_missing_photograph_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    write_tree(tmp_path, ROWS)
    with pytest.raises(DataError) as error:
        build(tmp_path).download_and_prepare()
    assert "pair '3-9': image" in str(error.value) and "9.jpg' is missing" in str(error.value)
    write_tree(tmp_path, [*ROWS, row("3", "4", "val", 3, "Animal 1 is smaller.")])
    log = tmp_path / "skipped.jsonl"
    builder = BirdsToWords(root=tmp_path, cache_dir=str(tmp_path / "cache"), skip_log=log)
    builder.download_and_prepare()
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    assert [json.loads(line)["pair_id"] for line in log.read_text().splitlines()] == ["3-9"]
    assert builder.as_dataset("train")[0]["before"].getpixel((0, 0))[0] in range(10, 15)  # JPEG


def test_the_photo_id_is_taken_from_the_record_if_the_image_url_has_none(tmp_path: Path) -> None:
    other = [cell.replace("static.inaturalist.org/photos/12/", "example.org/x/") for cell in ROWS[0]]
    (pair,) = build(write_tree(tmp_path, [other])).raw_pairs("train")
    assert pair.pair_id == "12-7"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0][:-1]], r"birds-to-words-v1.0.tsv', line 2: 10 cells, the header has 11"),
        ([ROWS[0], row("1", "2", "dev", 1, "text")], "line 3: split='dev', use one of train, val, test"),
        ([row("1", "2", "train", 1, " ")], "line 2: pair '1-2' has a caption without text"),
        ([row("../../etc/passwd", "2", "train", 1, "text")], "line 2: no photo id in img1ImgURL='.*etc/passwd"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, rows: list[list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(build(write_tree(tmp_path, rows)).raw_pairs("train"))


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="birds-to-words-v1.0.tsv is missing in .*images/<photo id>.jpg"):
        build(tmp_path).raw_splits()
    header = ["text" if name == "description" else name for name in HEADER]
    with pytest.raises(DataError, match="line 1: no column 'description'"):
        build(write_tree(tmp_path, ROWS, header)).raw_splits()


def real_rows(split: str) -> list[list[str]]:
    path = REAL / f"{split}.json"
    if not path.is_file():
        pytest.skip(f"the texts of Birds-to-Words are not in {REAL}")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        texts = pair["description"] if isinstance(pair["description"][0], list) else [pair["description"]]
        rows += [row(pair["img1"], pair["img2"], split, i, " ".join(text)) for i, text in enumerate(texts, start=1)]
    return rows


def test_counts_of_the_real_texts(tmp_path: Path) -> None:
    rows = [cells for split in ("train", "val", "test") for cells in real_rows(split)]
    builder = build(write_tree(tmp_path, rows))
    pairs = {split: list(builder.raw_pairs(split)) for split in builder.raw_splits()}
    assert {split: len(found) for split, found in pairs.items()} == builder.EXPECTED["default"]
    assert [sum(len(pair.captions) for pair in found) for found in pairs.values()] == [12890, 1556, 1604]
    assert all(len({pair.pair_id for pair in found}) == len(found) for found in pairs.values())


def test_the_real_example_pair(tmp_path: Path) -> None:
    if not (REAL / "sample-left.jpg").is_file():
        pytest.skip(f"the photographs of Birds-to-Words are not in {REAL}")
    write_tree(tmp_path, [row("647514", "5595152", "train", 1, "Animal 1 is brown and white.")])
    for name, photo in (("sample-left.jpg", "647514"), ("sample-right.jpg", "5595152")):
        shutil.copy(REAL / name, tmp_path / "images" / f"{photo}.jpg")
    builder = build(tmp_path)
    builder.download_and_prepare()
    rows = builder.as_dataset("train").cast_column("after", datasets.Image(decode=False))
    assert rows[0]["after"] == {"path": "5595152.jpg", "bytes": (REAL / "sample-right.jpg").read_bytes()}
    assert rows[0]["before"].size == Image.open(REAL / "sample-left.jpg").size


def test_a_header_alone_or_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an annotation of any split is missing in .*images/<photo id>.jpg"):
        build(write_tree(tmp_path, [])).raw_splits()
    with pytest.raises(DataError, match="tsv', line 1: the column 'split' is given 2 times"):
        build(write_tree(tmp_path, ROWS, [*HEADER, "split"])).raw_splits()
