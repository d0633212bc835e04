"""Settings of a synthesis run: one dataclass, from YAML and the command line, which wins."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common_idc.provenance import hub_commit
from common_idc.settings import Options, parse_settings

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


def option(help: str, **default: Any) -> Any:
    """Return a dataclass field with its help."""
    return field(metadata={"help": help}, **default)


@dataclass
class SynthesisConfig:
    # Required, but with a default for the parser: `check` says what is missing in file and command line together.
    output_dir: str = option("folder of all stages' files. Required.", default="")
    benchmark: str = option("images and instructions of this benchmark, see `list`", default="")
    benchmark_options: Options = option('JSON, e.g. {"seed": 1}', default_factory=Options)
    split: str = option("of the benchmark", default="train")
    image_folder: str = option(
        "or of this folder: metadata.jsonl with file_name, and instruction or, for the chat model, caption",
        default="",
    )
    pairs: int | None = option("use only the first N", default=None)
    shard_pairs: int = option("pairs per file", default=32)
    seed: int = option("of all random choices", default=42)
    chat_model: str | None = option(
        "writes paraphrases, and instructions for captions: folder or Hub id", default=None
    )
    chat_revision: str | None = option("its revision on the Hub", default=None)
    chat_gguf: str | None = option("the file in its folder, if it is a GGUF model", default=None)

    editor: EditorName = option("drawing: toy scenes only", default="instruct_pix2pix")
    editor_model: str | None = option("folder or Hub id; default: the editor's own", default=None)
    editor_revision: str | None = option("its revision on the Hub", default=None)
    candidates: int = option("edited images per pair", default=4)
    guidance_scales: list[float] = option(
        "of the instruction, taken in turn by the candidates; default: the pipeline's", default_factory=list
    )
    image_guidance_scales: list[float] = option("of the source image, likewise", default_factory=list)
    steps: int | None = option("of denoising; default: the pipeline's", default=None)
    resolution: int = option("side of the square whose area images are brought to for editing", default=512)
    dtype: Literal["float32", "bfloat16", "float16"] = option("of the editor and the chat model", default="float32")

    clip: str | None = option(
        "ranks the candidates: folder or Hub id; without one they keep their order", default=None
    )
    clip_revision: str | None = option("its revision on the Hub", default=None)

    min_image_text: float = option("similarity of edited image and text; the paper: 0.3", default=0.3)
    min_image_image: float = option("similarity of both images; InstructPix2Pix: 0.75", default=0.75)
    min_directional: float = option(
        "similarity of both changes, where captions are known; InstructPix2Pix: 0.2", default=0.2
    )
    min_changed: float = option("share of the picture that must look different", default=0.002)
    top_k: int = option("best candidates of a pair that are kept; the paper: 2", default=2)

    paraphrases: int = option("per instruction; the paper: 4", default=4)
    paraphrase_rounds: int = option("of asking, each with another seed, until there are enough", default=3)
    temperature: float = option("of the chat model", default=0.7)
    embedding_model: str | None = option(
        "sentence embeddings (mean pooled) that check the meaning: folder or Hub id", default=None
    )
    embedding_revision: str | None = option("its revision on the Hub", default=None)
    min_meaning: float = option("cosine of a paraphrase and its instruction", default=0.8)

    no_change_share: float = option("share of the final pairs that show no change", default=0.1)
    no_change_sentences: list[str] = option("what their captions are drawn from", default_factory=SENTENCES.copy)

    batch_size: int = option("images or answers computed at once", default=8)
    sheet_pairs: int = option("accepted and rejected pairs each on the contact sheet", default=12)
    stage: Literal["all", "instructions", "edits", "scores", "selection", "paraphrases", "rows"] = option(
        "run this stage alone", default="all"
    )
    retry_failed: bool = option("make pairs that failed with an error (e.g. out of memory) again", default=False)

    def check(self) -> None:
        """Raise ValueError for a missing or impossible value, which it quotes."""
        if not self.output_dir:
            raise ValueError("output_dir is missing: write it into the config file or pass --output_dir")
        if bool(self.benchmark) == bool(self.image_folder):
            raise ValueError(
                f"benchmark={self.benchmark!r}, image_folder={self.image_folder!r}: give one of them, where images "
                "come from"
            )
        least = {"pairs": 1, "shard_pairs": 1, "candidates": 1, "steps": 1, "resolution": 16, "top_k": 1}
        least |= {"paraphrases": 0, "paraphrase_rounds": 1, "batch_size": 1, "sheet_pairs": 0}
        for name, smallest in least.items():
            if getattr(self, name) is not None and getattr(self, name) < smallest:
                raise ValueError(f"{name}={getattr(self, name)}: use at least {smallest}")
        for name in ("min_image_text", "min_image_image", "min_directional", "min_meaning"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a cosine is between -1 and 1")
        for name in ("min_changed", "no_change_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a share of at least 0 and less than 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: use a number above 0")
        if self.no_change_share and not all(text.strip() for text in self.no_change_sentences or [""]):
            raise ValueError("no_change_sentences is empty or contains an empty one: no-change pairs need sentences")

    def made_from(self, stage: str) -> dict[str, Any]:
        """Return the settings that a stage's files depend on: its own and those of all earlier stages."""
        before = STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]
        return {name: getattr(self, name) for earlier in before for name in MADE_FROM[earlier]}


def parse_config(argv: list[str]) -> SynthesisConfig:
    """Return the checked settings of a command line and its config file."""
    program = "python -m dataset_syned synthesize"
    config = parse_settings(SynthesisConfig, argv, program, "make training pairs from images and edit instructions")
    config.check()
    return config
