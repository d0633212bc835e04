"""Settings of a synthesis run: one dataclass, from YAML and the command line, which wins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from common_idc.provenance import hub_commit
from common_idc.settings import (
    AnyFloat,
    NonNegativeInt,
    Options,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    check_ranges,
    option,
    parse_settings,
)

from .meaning import VERSION as RULES_VERSION
from .no_change import SENTENCES

# In order: stage -> its class, in the file of the stage's name.
STAGES: dict[str, str] = {
    "instructions": "Instructions",
    "edits": "Edits",
    "scores": "Scores",
    "selection": "Selection",
    "paraphrases": "Paraphrases",
    "rows": "Rows",
}
STAGE_NAMES = tuple(STAGES)
EditorName = Literal[
    "drawing",
    "instruct_pix2pix",
    "sdxl_instruct_pix2pix",
    "cosxl_edit",
    "flux_kontext",
    "flux2",
    "flux2_klein",
    "qwen_image_edit",
    "qwen_image_edit_plus",
]


class SettingsError(ValueError):
    """An impossible setting; it ends the run, while other errors are recorded with their pair."""


# The settings that a stage and later ones depend on: files made with other values are not mixed with new ones.
MADE_FROM: dict[str, tuple[str, ...]] = {
    "instructions": (
        "benchmark",
        "benchmark_options",
        "split",
        "image_folder",
        "pairs",
        "shard_pairs",
        "seed",
        "chat_model",
        "chat_revision",
        "chat_gguf",
    ),
    "edits": (
        "editor",
        "editor_model",
        "editor_revision",
        "candidates",
        "guidance_scales",
        "image_guidance_scales",
        "steps",
        "resolution",
        "dtype",
    ),
    "scores": (
        "clip",
        "clip_revision",
    ),
    "selection": (
        "min_image_text",
        "min_image_image",
        "min_directional",
        "min_changed",
        "top_k",
    ),
    "paraphrases": (
        "paraphrases",
        "paraphrase_rounds",
        "temperature",
        "embedding_model",
        "embedding_revision",
        "min_meaning",
    ),
    "rows": (
        "distractors",
        "no_change_share",
        "no_change_sentences",
    ),
}
MAY_CHANGE = (
    "output_dir",
    "batch_size",
    "sheet_pairs",
    "stage",
    "retry_failed",
)  # no pair depends on these


def public_name(model: str) -> str:
    """Return how provenance names a model: a local folder by its last part."""
    return Path(model).name if Path(model).is_dir() else model


def resolved_revision(model: str, revision: str | None) -> str | None:
    """Return the Hub commit of a loaded model, or the requested revision if it is unknown; None for a folder."""
    if Path(model).is_dir():
        return None
    for name in ("config.json", "model_index.json"):  # of a transformers model, of a diffusers pipeline
        if commit := hub_commit(model, name, revision or "main")[1]:
            return commit
    return revision or "main"


def describe_model(model: str, revision: str | None) -> dict[str, str | None]:
    """Return name and revision of a model for provenance."""
    return {"model": public_name(model), "revision": resolved_revision(model, revision)}


Cosine = Annotated[float, Range(at_least=-1, at_most=1)]
Share = Annotated[float, Range(at_least=0, below=1)]


@dataclass
class SynthesisConfig:
    # Required, but with a default for the parser: `check` says what is missing in file and command line together.
    output_dir: str = option("", "folder of all stages' files. Required.")
    benchmark: str = option("", "images and instructions of this benchmark, see `list`")
    benchmark_options: Options = option(Options(), 'JSON, e.g. {"seed": 1}')
    split: str = option("train", "of the benchmark")
    image_folder: str = option(
        "", "or of this folder: metadata.jsonl with file_name, and instruction or, for the chat model, caption"
    )
    pairs: PositiveInt | None = option(None, "use only the first N")
    shard_pairs: PositiveInt = option(32, "pairs per file")
    seed: Seed = option(42, "of all random choices")
    chat_model: str | None = option(None, "writes paraphrases, and instructions for captions: folder or Hub id")
    chat_revision: str | None = option(None, "its revision on the Hub")
    chat_gguf: str | None = option(None, "the file in its folder, if it is a GGUF model")
    editor: EditorName = option("instruct_pix2pix", "drawing: toy scenes only")
    editor_model: str | None = option(None, "folder or Hub id; default: the editor's own")
    editor_revision: str | None = option(None, "its revision on the Hub")
    candidates: PositiveInt = option(4, "edited images per pair")
    guidance_scales: list[AnyFloat] = option(
        [], "of the instruction, taken in turn by the candidates; default: the pipeline's"
    )
    image_guidance_scales: list[AnyFloat] = option([], "of the source image, likewise")
    steps: PositiveInt | None = option(None, "of denoising; default: the pipeline's")
    resolution: Annotated[int, Range(at_least=16)] = option(
        512, "side of the square whose area images are brought to for editing"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", "of the editor and the chat model")
    clip: str | None = option(None, "ranks the candidates: folder or Hub id; without one they keep their order")
    clip_revision: str | None = option(None, "its revision on the Hub")
    min_image_text: Cosine = option(0.3, "similarity of edited image and text; the paper: 0.3")
    min_image_image: Cosine = option(0.75, "similarity of both images; InstructPix2Pix: 0.75")
    min_directional: Cosine = option(0.2, "similarity of both changes, where captions are known; InstructPix2Pix: 0.2")
    min_changed: Share = option(0.002, "share of the picture that must look different")
    top_k: PositiveInt = option(2, "best candidates of a pair that are kept; the paper: 2")
    paraphrases: NonNegativeInt = option(4, "per instruction; the paper: 4")
    paraphrase_rounds: PositiveInt = option(3, "of asking, each with another seed, until there are enough")
    temperature: PositiveFloat = option(0.7, "of the chat model")
    embedding_model: str | None = option(
        None, "sentence embeddings (mean pooled) that check the meaning: folder or Hub id"
    )
    embedding_revision: str | None = option(None, "its revision on the Hub")
    min_meaning: Cosine = option(0.8, "cosine of a paraphrase and its instruction")
    distractors: bool = option(
        True, "let the images after differ a little otherwise too, as those of no-change pairs do"
    )
    no_change_share: Share = option(0.3, "share of the final pairs that show no change")
    no_change_sentences: list[str] = option(list(SENTENCES), "what their captions are drawn from")
    batch_size: PositiveInt = option(8, "images or answers computed at once")
    sheet_pairs: NonNegativeInt = option(12, "accepted and rejected pairs each on the contact sheet")
    stage: Literal["all", "instructions", "edits", "scores", "selection", "paraphrases", "rows"] = option(
        "all", "run this stage alone"
    )
    retry_failed: bool = option(False, "make pairs that failed with an error (e.g. out of memory) again")

    def check(self) -> None:
        """Raise ValueError for a missing or impossible value, which it quotes."""
        if not self.output_dir:
            raise ValueError("output_dir is missing: write it into the config file or pass --output_dir")
        if bool(self.benchmark) == bool(self.image_folder):
            raise ValueError(
                f"benchmark={self.benchmark!r}, image_folder={self.image_folder!r}: give one of them, where images "
                "come from"
            )
        check_ranges(self)
        if self.no_change_share and not all(text.strip() for text in self.no_change_sentences or [""]):
            raise ValueError("no_change_sentences is empty or contains an empty one: no-change pairs need sentences")

    def made_from(self, stage: str) -> dict[str, Any]:
        """Return what a stage's files depend on: settings of it and of earlier stages, and the version of rules."""
        before = STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]
        rules = {"paraphrase_rules": RULES_VERSION} if "paraphrases" in before else {}
        return {name: getattr(self, name) for earlier in before for name in MADE_FROM[earlier]} | rules


def parse_config(argv: list[str]) -> SynthesisConfig:
    """Return the checked settings of a command line and its config file."""
    program = "python -m dataset_syned synthesize"
    config = parse_settings(SynthesisConfig, argv, program, "make training pairs from images and edit instructions")
    config.check()
    return config
