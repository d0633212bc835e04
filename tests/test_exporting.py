"""export: what is written loads again, says the same, and is never half there."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from dataset_syned import benchmark_builder, exporting, load_benchmark, prepare
from dataset_syned.exporting import coco_references, export, export_clevr
from dataset_syned.pairs import FEATURES, DataError, image_bytes, pair_row
from modeling_blip2idc.image_fusion import load_image

OPTIONS = {"train": 12, "validation": 4, "test": 6}


@pytest.fixture(scope="module")
def toy() -> tuple:
    builder = benchmark_builder("toy", **OPTIONS)
    return builder, prepare(builder)


def test_parquet_loads_with_load_dataset_and_holds_the_raw_files(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(*toy, tmp_path / "toys", "parquet", "5KB")
    files = sorted(path.name for path in (tmp_path / "toys" / "data" / "default").iterdir())
    assert len([name for name in files if name.startswith("train")]) > 2, "shards are bounded in size"
    assert not list(tmp_path.glob(".*"))
    monkeypatch.chdir(tmp_path)
    for streaming in (False, True):
        again = datasets.load_dataset("./toys", split="test", streaming=streaming)
        first = load_benchmark("toy", "test", **OPTIONS)
        assert again.features == first.features
        for ours, theirs in zip(first, again, strict=True):
            assert np.array_equal(np.asarray(ours["before"]), np.asarray(theirs["before"]))
            assert (ours["pair_id"], ours["captions"]) == (theirs["pair_id"], theirs["captions"])
    text = b"".join(path.read_bytes() for path in (tmp_path / "toys").rglob("*.parquet"))
    assert str(tmp_path).encode() not in text and b"test-000000-before.png" in text


def test_the_card_names_configs_counts_and_licence(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "toys", "parquet", "500MB")
    card = (tmp_path / "toys" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["configs"][0]["config_name"] == "default" and head["license"] == "mit"
    assert "| default | train | 12 |" in card and "{{" not in card and "{%" not in card


def test_coco_references_are_the_captions_in_order(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "coco", "coco", "")
    rows = load_benchmark("toy", "test", **OPTIONS)
    content = json.loads((tmp_path / "coco" / "test.json").read_text())
    assert content == coco_references(rows)
    assert [image["id"] for image in content["images"]] == rows["pair_id"][:]
    assert [a["id"] for a in content["annotations"]] == list(range(30))
    gathered: dict[str, list[str]] = {}
    for annotation in content["annotations"]:
        gathered.setdefault(annotation["image_id"], []).append(annotation["caption"])
    assert list(gathered.values()) == rows["captions"][:]


def test_clevr_layout_reads_back(toy: tuple, tmp_path: Path) -> None:
    export(*toy, tmp_path / "clevr", "clevr", "")
    read = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "clevr").glob("*.json")}
    assert {split: len(numbers) for split, numbers in read["splits"].items()} == {"train": 12, "val": 4, "test": 6}
    names = {f"{number:06d}.png" for numbers in read["splits"].values() for number in numbers}
    assert (
        names
        == set(read["change_captions"])
        == {name for change_type in read["type_mapping"].values() for name in change_type}
    )
    for folder in ("images", "sc_images"):
        assert {path.name for path in (tmp_path / "clevr" / folder).iterdir()} == names
    row = load_benchmark("toy", "test", **OPTIONS)[0]
    name = f"{read['splits']['test'][0]:06d}.png"
    assert read["pair_ids"][name] == row["pair_id"] and read["change_captions"][name] == row["captions"]
    assert np.array_equal(
        datasets.Image().decode_example({"path": str(tmp_path / "clevr/sc_images" / name), "bytes": None}),
        row["after"],
    )


def test_clevr_layout_has_the_images_that_training_sees_and_names_those_it_refuses(tmp_path: Path) -> None:
    turned, clear = Image.new("RGB", (8, 4), "red"), Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    files = []
    for picture, options in ((turned, {"exif": exif}), (clear, {})):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", **options)
        files.append(buffer.getvalue())
    row = pair_row("p", image_bytes("a.png", files[0]), image_bytes("b.png", files[1]), ["turned"], "style")
    rows = datasets.Dataset.from_list([row], features=FEATURES)
    export_clevr(datasets.DatasetDict(test=rows), tmp_path / "clevr")
    for folder, expected in (("images", load_image(files[0])), ("sc_images", load_image(files[1]))):
        with Image.open(tmp_path / "clevr" / folder / "000000.png") as written:
            assert written.mode == "RGB" and np.array_equal(np.asarray(written), np.asarray(expected))
    assert json.loads((tmp_path / "clevr" / "type_mapping.json").read_text()) == {"style": ["000000.png"]}
    cut = datasets.Dataset.from_list([row | {"after": image_bytes("b.png", files[1][:40])}], features=FEATURES)
    with pytest.raises(DataError, match="pair 'p': image 'b.png' cannot be read"):
        export_clevr(datasets.DatasetDict(test=cut), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_nothing_is_written_half_or_over_something(
    toy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty: name another folder"):
        export(*toy, tmp_path / "full", "coco", "")
    monkeypatch.setattr(exporting, "save_png", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        export(*toy, tmp_path / "new", "clevr", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
