"""Every field of SynthesisConfig changes something; a new field without an entry here is a failure."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from test_synthesis_models import Scripted, needs_diffusers, photograph, photographs
from tiny_synthesis_models import save_chat_model, save_pipeline

from dataset_syned.synthesis import stages
from dataset_syned.synthesis.chat import ChatModel
from dataset_syned.synthesis.diffusion_editor import PipelineEditor
from dataset_syned.synthesis.edits import Edits
from dataset_syned.synthesis.paraphrases import Paraphrases
from dataset_syned.synthesis.scores import Scores
from dataset_syned.synthesis.selection import Selection
from dataset_syned.synthesis.settings import SynthesisConfig

TOY = {"look": "studio", "wording": "instruction", "seed": 7, "train": 12, "validation": 12}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"<chat>": str(save_chat_model(folder / "chat")), "<editor>": str(folder / "editor")}


@pytest.fixture(scope="module")
def editor(models: dict[str, str]) -> str:
    return str(save_pipeline(Path(models["<editor>"])))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def written(config: SynthesisConfig, patch: pytest.MonkeyPatch) -> Any:
    """Return what a run with the drawing editor writes, and the sizes of its batches."""
    sizes, rows = [], stages.Attempts.rows
    patch.setattr(stages.Attempts, "rows", lambda self, batch: sizes.append(len(batch)) or rows(self, batch))
    stages.synthesize(config)
    folder = Path(config.output_dir)
    lines = folder / "dataset" / "metadata.jsonl"
    pairs = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return {
        "pairs": [(pair["pair_id"], pair["change_type"], pair["captions"]) for pair in pairs],
        "pictures": [digest(file.read_bytes()) for file in sorted(folder.rglob("*.png"))],
        "files": sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")),
        "batches": sizes,
    }


def selected(config: SynthesisConfig, _: Any) -> Any:
    score = {"changed": 0.5, "contrast": 50.0, "image_image": 0.8, "image_text": 0.4, "directional": 0.3}
    row = {"scores": [score] * 3, "editor_problems": [""] * 3, "digests": ["a", "b", "c"]}
    return Selection(config).select_pair(row)["kept"]


class FixedEmbedding:
    """Sentence embeddings with a similarity of 0.85 between a sentence with "it" and any other."""

    description = {"model": "fixed", "revision": None}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[0.85, 0.53] if "it" in text.split() else [1.0, 0.0] for text in texts])


def paraphrased(config: SynthesisConfig, _: Any) -> Any:
    """Return the captions of one pair from scripted answers, of which one in four means something else."""
    stage = Paraphrases(config)
    stage.chat = Scripted(["Turn the sky red.", "Make it red, the sky.", "Paint the sky red.", "Dye the sky red."] * 3)
    stage.embed = FixedEmbedding()
    sources, instruction = {"pair_id": "7"}, {"instruction": "make the sky red", "given": []}
    (row,) = stage.work([{"sources": sources, "instructions": instruction}])
    return row["captions"], stage.chat.seeds


def answered(config: SynthesisConfig, _: Any) -> Any:
    return ChatModel(config).answers([[{"role": "user", "content": "the small red circle"}]] * 3, [1, 2, 3], 8)


def edited(config: SynthesisConfig, _: Any) -> Any:
    buffer = io.BytesIO()
    photograph(1).save(buffer, "PNG")
    source = {"pair_id": "7", "image": {"bytes": buffer.getvalue(), "path": None}, "provenance": "{}"}
    (row,) = Edits(config).work([{"sources": source, "instructions": {"instruction": "make the sky red"}}])
    return [digest(candidate["image"]["bytes"]) for candidate in row["candidates"]]


def loaded_with(config: SynthesisConfig, patch: pytest.MonkeyPatch) -> Any:
    """Return the arguments with which the stages load their models; without the Hub, no revision can be loaded."""
    import diffusers
    import transformers

    seen = []

    def load(*arguments: Any, **options: Any) -> Any:
        seen.append(repr((arguments, options)))
        return MagicMock()

    def load_editor(*arguments: Any, **options: Any) -> Any:
        load(*arguments, **options)
        raise InterruptedError

    for name in ("AutoTokenizer", "AutoModelForCausalLM", "AutoModel", "AutoProcessor"):
        patch.setattr(getattr(transformers, name), "from_pretrained", load)
    for name in ("StableDiffusionInstructPix2PixPipeline", "FluxKontextPipeline"):
        patch.setattr(getattr(diffusers, name), "from_pretrained", load_editor)
    Paraphrases(config)
    Scores(config)
    with pytest.raises(InterruptedError):
        PipelineEditor(config)
    return seen


MODELS = {"chat_model": "me/chat", "embedding_model": "me/sentences", "clip": "me/clip", "editor": "instruct_pix2pix"}
EDITOR = {"editor": "instruct_pix2pix", "editor_model": "<editor>", "steps": 2, "resolution": 32, "candidates": 2}
Observe = Callable[[SynthesisConfig, pytest.MonkeyPatch], Any]
# field: another value, what observes it, the settings of both
FIELDS: dict[str, tuple[Any, Observe, dict[str, Any]]] = {
    "benchmark_options": ({**TOY, "seed": 8}, written, {}),
    "split": ("validation", written, {}),
    "pairs": (5, written, {}),
    "shard_pairs": (3, written, {}),
    "seed": (1, written, {}),
    "chat_model": ("me/other", loaded_with, MODELS),
    "chat_revision": ("v2", loaded_with, MODELS),
    "chat_gguf": ("small.gguf", loaded_with, MODELS),
    "editor": ("flux_kontext", loaded_with, MODELS),
    "editor_model": ("me/editor", loaded_with, MODELS),
    "editor_revision": ("v2", loaded_with, MODELS),
    "candidates": (3, written, {}),
    "guidance_scales": ([2.0], edited, EDITOR),
    "image_guidance_scales": ([4.0], edited, EDITOR),
    "steps": (3, edited, EDITOR),
    "resolution": (64, edited, EDITOR),
    "dtype": ("bfloat16", loaded_with, MODELS),
    "clip": ("me/other", loaded_with, MODELS),
    "clip_revision": ("v2", loaded_with, MODELS),
    "min_image_text": (0.45, selected, {}),
    "min_image_image": (0.85, selected, {}),
    "min_directional": (0.35, selected, {}),
    "min_changed": (0.55, selected, {}),
    "top_k": (2, selected, {}),
    "paraphrases": (2, paraphrased, {}),
    "paraphrase_rounds": (1, paraphrased, {"paraphrases": 5}),
    "temperature": (5.0, answered, {"chat_model": "<chat>"}),
    "embedding_model": ("me/other", loaded_with, MODELS),
    "embedding_revision": ("v2", loaded_with, MODELS),
    "min_meaning": (0.9, paraphrased, {}),
    "distractors": (False, written, {}),
    "no_change_share": (0.5, written, {}),
    "no_change_sentences": (["All is the same."], written, {"no_change_share": 0.3}),
    "batch_size": (2, written, {}),
    "sheet_pairs": (1, written, {}),
    "stage": ("instructions", written, {}),
}
TESTED_ALONE = ("output_dir", "benchmark", "image_folder", "retry_failed")  # the last one in test_synthesis.py
NEED_DIFFUSERS = (loaded_with, edited)


def synthesis_config(folder: Path, models: dict[str, str], **changes: Any) -> SynthesisConfig:
    settings = {"output_dir": str(folder), "benchmark": "toy", "benchmark_options": TOY, "editor": "drawing"}
    settings |= {"pairs": 8, "shard_pairs": 4, "candidates": 2, "top_k": 1, "no_change_share": 0.0}
    return SynthesisConfig(**settings | {name: models.get(str(value), value) for name, value in changes.items()})


def test_every_field_of_synthesis_has_an_entry() -> None:
    assert {*FIELDS, *TESTED_ALONE} == {field.name for field in dataclasses.fields(SynthesisConfig)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[needs_diffusers] if observe in NEED_DIFFUSERS else [])
        for name, (_, observe, _) in FIELDS.items()
    ],
)
def test_each_field_of_synthesis_reaches_its_use(
    name: str, models: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    value, observe, both = FIELDS[name]
    if observe is edited:
        request.getfixturevalue("editor")
    seen = []
    # The first twice: if it differed from itself, this test could not fail.
    for number, changes in enumerate((both, both, {**both, name: value})):
        with pytest.MonkeyPatch.context() as patch:
            seen.append(observe(synthesis_config(tmp_path / str(number), models, **changes), patch))
    assert seen[0] == seen[1] != seen[2]


def test_images_come_from_the_benchmark_or_the_folder_that_is_named(tmp_path: Path, models: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown benchmark 'toy2'"):
        stages.synthesize(synthesis_config(tmp_path / "a", models, benchmark="toy2"))
    photos = photographs(tmp_path / "photos")
    config = synthesis_config(
        tmp_path / "b", models, benchmark="", benchmark_options={}, image_folder=str(photos), stage="instructions"
    )
    stages.synthesize(config)
    (rows,) = (tmp_path / "b" / "instructions").glob("*.jsonl")
    instructions = [json.loads(line)["instruction"] for line in rows.read_text().splitlines()]
    assert instructions == ["make it number 0", "make it number 1", "make it number 2"]
