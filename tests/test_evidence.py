"""Evidence maps: their parts, boxes and overlays; that they point at a change; and the measurement of that."""

import json
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from program_files import load_program

from captioner_idc.captioning import caption
from captioner_idc.evidence import COLOR, Evidence, box_around, find_evidence, overlay, with_part
from captioner_idc.loading import SHIPPED, load
from modeling_blip2idc.image_fusion import Cell


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any]:
    return load(SHIPPED, device="cpu")


@pytest.fixture(scope="module")
def measurement(root: Path) -> ModuleType:
    return load_program(root / "measurements" / "evidence_maps.py", "evidence_maps")


def plain(color: tuple[int, int, int], size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_a_part_comes_from_the_same_place_of_the_other_image() -> None:
    other = plain((0, 0, 255), (80, 40))
    ImageDraw.Draw(other).rectangle((60, 0, 79, 39), fill=(0, 255, 0))
    mixed = np.asarray(with_part(Cell(plain((255, 0, 0))), Cell(other), (0.5, 0.0, 1.0, 0.5)).picture)
    assert (mixed[:10, 20:29] == (0, 0, 255)).all() and (mixed[:10, 31:] == (0, 255, 0)).all()
    assert (mixed[:, :20] == (255, 0, 0)).all() and (mixed[10:] == (255, 0, 0)).all()


def test_a_box_contains_the_connected_neighbours_of_the_strongest_part() -> None:
    heat = np.zeros((4, 8))
    heat[1, 2], heat[1, 3], heat[2, 3], heat[3, 7], heat[0, 3] = 1.0, 0.6, 0.5, 0.9, 0.4
    assert box_around(heat) == (2 / 8, 1 / 4, 4 / 8, 3 / 4)
    assert box_around(np.zeros((2, 2))) == (0.0, 0.0, 0.5, 0.5)


def test_an_overlay_marks_the_heat_and_the_box() -> None:
    heat = np.zeros((8, 8))
    heat[6, 1] = 1.0
    drawn = overlay(plain((0, 0, 0), (160, 160)), Evidence(heat, (0.125, 0.75, 0.25, 0.875), 1.0))
    values = np.asarray(drawn)
    assert drawn.size == (160, 160) and (values[120, 30] == COLOR).all() and (values[130, 20] == COLOR).all()
    assert values[130, 30].sum() > 100 and values[20, 140].sum() == 0


def test_the_evidence_is_where_the_photograph_was_changed(shipped: tuple[Any, Any], root: Path) -> None:
    pair = root / "docs" / "before.jpg", root / "docs" / "after.jpg"
    before, after = (np.asarray(Image.open(path), float) for path in pair)
    rows, columns = np.nonzero(np.abs(after - before).max(axis=2) > 60)
    [sentence] = caption(*shipped, [pair])
    found = find_evidence(*shipped, pair, sentence)
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    height, width = before.shape[:2]
    assert columns.min() <= (column + 0.5) / 8 * width <= columns.max()
    assert rows.min() <= (row + 0.5) / 8 * height <= rows.max()
    assert found.strength > 1 and found.heat.max() == 1.0
    again = find_evidence(*shipped, pair, sentence, batch_size=7)
    assert again.box == found.box and again.strength == pytest.approx(found.strength, abs=1e-3)


def test_hits_tolerance_and_chance(measurement: ModuleType) -> None:
    heat = np.zeros((8, 8))
    heat[0, 1] = 1.0  # its centre is at (0.1875, 0.0625)
    assert measurement.is_hit(heat, [(0.2, 0.0, 0.4, 0.1)]), "within half a part"
    assert not measurement.is_hit(heat, [(0.26, 0.0, 0.4, 0.1)])
    assert measurement.is_hit(heat, [(0.9, 0.9, 1.0, 1.0), (0.1, 0.0, 0.3, 0.1)])
    assert measurement.chance([(0.0, 0.0, 1.0, 1.0)]) == 1.0
    assert measurement.chance([(0.25, 0.25, 0.5, 0.5)]) == pytest.approx(16 / 64), (
        "two parts and half one on each side"
    )


def test_toy_boxes_contain_what_differs(measurement: ModuleType) -> None:
    for change in islice(measurement.toy_changes(), 4):
        values = [np.asarray(image, float) for image in (change.before, change.after)]
        height, width = values[0].shape[:2]
        inside = np.zeros((height, width), bool)
        for left, top, right, bottom in change.boxes:
            inside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        differs = np.abs(values[0] - values[1]).mean(axis=2)
        assert (
            1 <= len(change.boxes) <= 2
            and differs[inside].max() > 40
            and differs[inside].mean() > differs[~inside].mean()
        )


def test_the_measurement_writes_table_numbers_and_picture(
    measurement: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "photo_changes", lambda data_dir: measurement.toy_changes())
    page = tmp_path / "page.md"
    page.write_text("before\n" + "\n".join(measurement.MARKS) + "\nafter\n")
    assert measurement.main(["--pairs", "2", "--output", str(tmp_path), "--page", str(page)]) == 0
    table = capsys.readouterr().out.strip()
    assert table in page.read_text() and "| toy | 2 |" in table and "cross-attention" in table
    results = json.loads((tmp_path / "evidence_maps.json").read_text())
    assert all(len(values) == 2 for hits in results.values() for values in hits.values())
    assert Image.open(tmp_path / "evidence_maps.jpg").width > 900
