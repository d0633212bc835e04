"""GPT-Image-Edit-1.5M: tasks in their folders; rewritten instructions are pairs of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_syned.benchmarks.gpt_image_edit import GptImageEdit
from dataset_syned.pairs import DataError, RawPair


def item(number: int, kind: str = "original", **more: str) -> dict[str, Any]:
    names = {"input": f"input/{number}.png", "output": f"output/{number}.png"}
    labels = {"dataset_source": "omniedit", "task": "addition", "instruction_type": kind}
    texts = {"instruction": f"add a {kind} lamp", "input_description": "a room"}
    return {"id": f"omniedit_addition_{number}"} | names | labels | texts | more


def write_task(root: Path, task: str, items: list[Any]) -> None:
    folder = root / "gpt-edit" / "omniedit" / task
    for side, color in (("input", "white"), ("output", "black")):
        (folder / side).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (8, 8), color).save(folder / side / f"{number}.png")
    (folder / "metadata").mkdir()
    (folder / "metadata" / f"omniedit_{task}.json").write_text(json.dumps(items))


def write_tiny(root: Path, broken: bool) -> None:
    rewritten = item(1, "rewrite", instruction_original="add a lamp")
    write_task(root, "addition", [{"id": "x"}] * broken + [item(1), rewritten, item(2)])


def test_items_are_pairs(tmp_path: Path) -> None:
    write_tiny(tmp_path, broken=False)
    write_task(tmp_path, "env", [item(2, id="omniedit_env_2", task="env")])
    builder, folder = GptImageEdit(root=tmp_path), tmp_path / "gpt-edit" / "omniedit"
    assert builder.raw_splits() == ["train"]
    first, rewritten, _, other = builder.raw_pairs("train")
    known = {"input": "a room", "source": "omniedit", "task": "addition", "instruction type": "original"}
    images = folder / "addition" / "input" / "1.png", folder / "addition" / "output" / "1.png"
    assert first == RawPair("omniedit_addition_1", *images, ["add a original lamp"], "add", known)
    assert rewritten.pair_id == "omniedit_addition_1-rewrite" and rewritten.captions == ["add a rewrite lamp"]
    assert rewritten.provenance["original instruction"] == "add a lamp"
    assert (other.change_type, other.before) == ("", folder / "env" / "input" / "2.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": ""}, "omniedit_addition.json', item 0: no text in 'instruction'"),
        ({"output": "../../../../x.png"}, "leads out"),
        ({"input": None}, "item 0: a field has a wrong type"),
    ],
)
def test_a_broken_item_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_task(tmp_path, "addition", [item(1) | change])
    with pytest.raises(DataError, match=message):
        list(GptImageEdit(root=tmp_path).raw_pairs("train"))
