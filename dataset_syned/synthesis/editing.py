"""Second stage: candidates for the after image, by any editor of diffusers or by the one that draws toy scenes."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby, product
from typing import Any, Protocol

import pyarrow as pa
from PIL import Image

from .no_change import png
from .settings import SettingsError, SynthesisConfig, told_model
from .shards import IMAGE, Row, batched, seed_of
from .sources import upright

SCHEMA = pa.schema(
    {
        "position": pa.int64(),
        "candidates": pa.list_(
            pa.struct(
                {
                    "image": IMAGE,  # null where there is a problem
                    "made": pa.string(),  # JSON: seed, guidance
                    "problem": pa.string(),
                }
            )
        ),
        "editor": pa.string(),  # JSON: model, revision, settings, versions
        "problem": pa.string(),
    }
)
MULTIPLE = 16  # of pixels: no editor of the table asks for a coarser one


@dataclass(frozen=True)
class Task:
    """A pair to edit."""

    pair_id: str
    image: Image.Image
    instruction: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """The chance of one candidate."""

    seed: int
    guidance: tuple[tuple[str, float], ...] = ()  # argument of the pipeline and its value


Edited = Image.Image | str  # or why there is none


class Editor(Protocol):
    """What makes candidates. `told` goes into the provenance of each."""

    told: dict[str, Any]

    def edit(self, tasks: list[Task], draws: list[list[Draw]]) -> list[list[Edited]]:
        """For each task one result per draw. Tasks of one call have images of one working size."""


@dataclass(frozen=True)
class Pipeline:
    """An editing pipeline of diffusers.

    Args:
        name: its class.
        model: weights on the Hub, where nothing else is asked for; None where none are known in diffusers' format.
        guidance, image_guidance: its arguments for how closely to follow the instruction, and the source image.
        lists: whether a list of images is one per prompt. Elsewhere it is several references for one prompt.
        init, call: further arguments of the constructor, and of each call.
    """

    name: str
    model: str | None
    guidance: str = "guidance_scale"
    image_guidance: str | None = None
    lists: bool = True
    init: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


EDITORS: dict[str, Pipeline] = {
    "instruct_pix2pix": Pipeline(
        "StableDiffusionInstructPix2PixPipeline",
        "timbrooks/instruct-pix2pix",
        image_guidance="image_guidance_scale",
    ),
    "sdxl_instruct_pix2pix": Pipeline(
        "StableDiffusionXLInstructPix2PixPipeline",
        "diffusers/sdxl-instructpix2pix-768",
        image_guidance="image_guidance_scale",
    ),
    "cosxl_edit": Pipeline(
        "StableDiffusionXLInstructPix2PixPipeline",
        None,  # stabilityai/cosxl is a single file
        image_guidance="image_guidance_scale",
        init={"is_cosxl_edit": True},
    ),
    "flux_kontext": Pipeline("FluxKontextPipeline", "black-forest-labs/FLUX.1-Kontext-dev"),
    "flux2": Pipeline("Flux2Pipeline", "black-forest-labs/FLUX.2-dev", lists=False),
    "flux2_klein": Pipeline("Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-4B", lists=False),
    # Without a negative prompt these two ignore their guidance.
    "qwen_image_edit": Pipeline(
        "QwenImageEditPipeline", "Qwen/Qwen-Image-Edit", "true_cfg_scale", lists=False, call={"negative_prompt": " "}
    ),
    "qwen_image_edit_plus": Pipeline(
        "QwenImageEditPlusPipeline",
        "Qwen/Qwen-Image-Edit-2509",
        "true_cfg_scale",
        lists=False,
        call={"negative_prompt": " "},
    ),
}


class PipelineEditor:
    """Candidates by a pipeline of EDITORS."""

    def __init__(self, config: SynthesisConfig):
        try:
            import diffusers
        except ImportError as error:
            raise SettingsError(
                f"editor {config.editor!r} needs diffusers, for Python 3.11 or later: pip install diffusers ({error})"
            ) from error
        import torch

        from .chat import pick_device

        self.entry, self.batch_size = EDITORS[config.editor], config.batch_size
        model = config.editor_model or self.entry.model
        if model is None:
            raise SettingsError(
                f"editor {config.editor!r} has no weights of its own in diffusers' format: convert them and name the "
                "folder as editor_model"
            )
        self.pipeline = getattr(diffusers, self.entry.name).from_pretrained(
            model, revision=config.editor_revision, dtype=getattr(torch, config.dtype), **self.entry.init
        )
        self.pipeline.to(pick_device())
        self.pipeline.set_progress_bar_config(disable=True)
        defaults = inspect.signature(self.pipeline.__call__).parameters
        self.accepts = set(defaults)
        if config.guidance_scales and self.pipeline.config.get("is_distilled"):
            raise SettingsError(f"{model!r} is distilled and passes over its guidance: leave guidance_scales out")
        self.steps = {"num_inference_steps": config.steps} if config.steps else {}
        self.told = {
            "editor": config.editor,
            **told_model(model, config.editor_revision),
            "dtype": config.dtype,
            "resolution": config.resolution,
            "steps": config.steps or defaults["num_inference_steps"].default,
            # of the pipeline, for candidates that tell no other
            "guidance": {
                name: defaults[name].default for name in (self.entry.guidance, self.entry.image_guidance) if name
            },
            "versions": {name: version(name) for name in ("diffusers", "torch", "transformers")},
        }
        self.encoded: dict[int, Any] = {}  # latents of the sources of one call of `edit`

    def edit(self, tasks: list[Task], draws: list[list[Draw]]) -> list[list[Edited]]:
        results: dict[tuple[int, int], Edited] = {}
        self.encoded = {}
        for guidance, places in by_guidance(draws):
            for call in self.calls(places):
                chosen = [tasks[task] for task, _ in call]
                seeds = [draws[task][draw].seed for task, draw in call]
                results |= zip(call, self.run(chosen, seeds, dict(guidance)), strict=True)
        return [[results[task, draw] for draw in range(len(draws[task]))] for task in range(len(tasks))]

    def calls(self, places: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """(task, draw) that one call of the pipeline computes; only one task, where a list of images is no batch."""
        if self.entry.lists:
            yield from batched(places, self.batch_size)
            return
        for _, group in groupby(places, key=lambda place: place[0]):
            yield from batched(list(group), self.batch_size)

    def run(self, tasks: list[Task], seeds: list[int], guidance: dict[str, float]) -> list[Edited]:
        """One result per task and seed."""
        import torch

        width, height = tasks[0].image.size
        given = {
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "width": width,
            "height": height,
            "max_area": width * height,
            **self.images(tasks),
            **self.steps,
            **self.entry.call,
            **guidance,
        }
        given = {name: value for name, value in given.items() if name in self.accepts}
        output = self.pipeline(**given)
        hidden = output.get("nsfw_content_detected") or [False] * len(tasks)
        return [
            "hidden by the editor's safety checker" if is_hidden else image
            for image, is_hidden in zip(output.images, hidden, strict=True)
        ]

    def images(self, tasks: list[Task]) -> dict[str, Any]:
        """Each source is encoded once, whatever the number of its candidates."""
        if not self.entry.lists:
            return {"image": tasks[0].image, "prompt": tasks[0].instruction, "num_images_per_prompt": len(tasks)}
        # Not num_images_per_prompt: with several sources InstructPix2Pix then joins prompts and images of other pairs.
        images, prompts = [task.image for task in tasks], [task.instruction for task in tasks]
        if self.entry.name == "StableDiffusionInstructPix2PixPipeline":  # it takes latents for an image
            return {"image": self.latents(images), "prompt": prompts}
        return {"image": images, "prompt": prompts}

    def latents(self, images: list[Image.Image]) -> Any:
        import torch

        vae = self.pipeline.vae
        new = list({id(image): image for image in images if id(image) not in self.encoded}.values())
        if new:
            pixels = self.pipeline.image_processor.preprocess(new).to(vae.device, vae.dtype)  # [sources, 3, H, W]
            with torch.no_grad():
                encoded = vae.encode(pixels).latent_dist.mode()  # [sources, 4, H / 8, W / 8]
            self.encoded |= dict(zip(map(id, new), encoded, strict=True))
        return torch.stack([self.encoded[id(image)] for image in images])


def by_guidance(draws: list[list[Draw]]) -> list[tuple[tuple[tuple[str, float], ...], list[tuple[int, int]]]]:
    """(task, draw) of all draws, by guidance: a call of a pipeline has one."""
    groups: dict[tuple[tuple[str, float], ...], list[tuple[int, int]]] = {}
    for task, row in enumerate(draws):
        for number, draw in enumerate(row):
            groups.setdefault(draw.guidance, []).append((task, number))
    return list(groups.items())


def make_editor(config: SynthesisConfig) -> Editor:
    if config.editor == "drawing":
        from .scene_editing import SceneEditor

        return SceneEditor(config)
    return PipelineEditor(config)


def check_guidance(config: SynthesisConfig) -> None:
    """Raises: SettingsError for a guidance that the editor has not, or that switches off another."""
    entry = EDITORS.get(config.editor)
    if config.guidance_scales and not entry or config.image_guidance_scales and not (entry and entry.image_guidance):
        raise SettingsError(f"editor {config.editor!r} has no such guidance: leave guidance_scales and the like out")
    if entry and entry.image_guidance and any(scale <= 1 for scale in config.guidance_scales):
        raise SettingsError(
            f"guidance_scales={config.guidance_scales}: at 1 and below the editor ignores the source image as well"
        )
    if any(scale < 1 for scale in config.image_guidance_scales):
        raise SettingsError(
            f"image_guidance_scales={config.image_guidance_scales}: below 1 the editor ignores all guidance"
        )


def draws_of(config: SynthesisConfig, pair_id: str) -> list[Draw]:
    """The candidates' chances; they take the combinations of guidances in turn."""
    entry = EDITORS.get(config.editor)
    named: list[list[tuple[str, float]]] = []
    if entry:
        scales = ((entry.guidance, config.guidance_scales), (entry.image_guidance, config.image_guidance_scales))
        named = [[(name, value) for value in values] for name, values in scales if values]
    combinations = list(product(*named))  # one empty combination, where nothing is asked for
    return [
        Draw(seed_of(config.seed, pair_id, number), combinations[number % len(combinations)])
        for number in range(config.candidates)
    ]


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """About the same shape, about resolution x resolution pixels, in multiples that every editor takes."""
    scale = resolution / (size[0] * size[1]) ** 0.5
    return tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in size)


class Editing:
    """Rows: SCHEMA. Edited images have the size of their source."""

    needs, looks = ("sources", "instructions"), True

    def __init__(self, config: SynthesisConfig):
        self.batch_size = max(1, config.batch_size // config.candidates)
        check_guidance(config)
        self.config, self.editor = config, make_editor(config)
        self.told = json.dumps(self.editor.told, sort_keys=True)

    def group(self, inputs: dict[str, Row]) -> tuple[int, int]:
        """Images of one size go through the editor together."""
        return self.size((inputs["sources"]["width"], inputs["sources"]["height"]))

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if self.config.editor == "drawing" else working_size(size, self.config.resolution)

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        originals, tasks = [], []
        for inputs in batch:
            source, original = inputs["sources"], upright(inputs["sources"]["image"]["bytes"])
            size = self.size(original.size)
            working = original if size == original.size else original.resize(size, Image.Resampling.LANCZOS)
            instruction, provenance = inputs["instructions"]["instruction"], json.loads(source["provenance"])
            originals.append(original)
            tasks.append(Task(source["pair_id"], working, instruction, provenance))
        draws = [draws_of(self.config, task.pair_id) for task in tasks]
        edited = self.editor.edit(tasks, draws)
        return [
            {
                "candidates": [candidate(*made, original.size) for made in zip(images, row, strict=True)],
                "editor": self.told,
                "problem": "",
            }
            for original, images, row in zip(originals, edited, draws, strict=True)
        ]


def candidate(edited: Edited, draw: Draw, size: tuple[int, int]) -> Row:
    made = json.dumps({"seed": draw.seed, **dict(draw.guidance)}, sort_keys=True)
    if isinstance(edited, str):
        return {"image": None, "made": made, "problem": edited}
    if edited.size != size:
        edited = edited.resize(size, Image.Resampling.LANCZOS)
    return {"image": {"bytes": png(edited.convert("RGB")), "path": None}, "made": made, "problem": ""}
