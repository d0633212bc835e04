"""Editors by diffusion: the editing pipelines of diffusers behind the contract of editors."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from PIL import Image

from common_idc.provenance import library_versions

from .editors import Candidate, Edited, Task
from .settings import SettingsError, SynthesisConfig, describe_model
from .shards import batched

MULTIPLE = 16  # pixels: no editor of the table needs a coarser one


@dataclass(frozen=True)
class Pipeline:
    """An editing pipeline of diffusers.

    Args:
        name: its class.
        model: default weights on the Hub; None if none are known in diffusers' format.
        guidance, image_guidance: its arguments for how closely to follow the instruction, and the source image.
        lists: whether a list of images is one per prompt, and not several references for one prompt.
        init, call: further arguments of the constructor, and of each call.
    """

    name: str
    model: str | None
    guidance: str = "guidance_scale"
    image_guidance: str | None = None
    lists: bool = True
    init: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


PIPELINES: dict[str, Pipeline] = {
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


def guidances_of(config: SynthesisConfig) -> list[list[tuple[str, float]]]:
    """Return the (argument, value) choices that the config gives, a list per argument.

    Raises: SettingsError for a guidance that the editor lacks, or that switches another off.
    """
    entry = PIPELINES[config.editor]
    if config.image_guidance_scales and not entry.image_guidance:
        raise SettingsError(f"editor {config.editor!r} has no image guidance: leave image_guidance_scales out")
    if entry.image_guidance and any(scale <= 1 for scale in config.guidance_scales):
        raise SettingsError(
            f"guidance_scales={config.guidance_scales}: at 1 and below the editor ignores the source image as well"
        )
    if any(scale < 1 for scale in config.image_guidance_scales):
        raise SettingsError(
            f"image_guidance_scales={config.image_guidance_scales}: below 1 the editor ignores all guidance"
        )
    scales = ((entry.guidance, config.guidance_scales), (entry.image_guidance, config.image_guidance_scales))
    return [[(name, value) for value in values] for name, values in scales if values]


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Return about the same shape with resolution x resolution pixels, in multiples that every editor takes."""
    scale = resolution / (size[0] * size[1]) ** 0.5
    return tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in size)


class PipelineEditor:
    """Editor that runs a pipeline of PIPELINES."""

    def __init__(self, config: SynthesisConfig):
        try:
            import diffusers
        except ImportError as error:
            raise SettingsError(
                f"editor {config.editor!r} needs diffusers, for Python 3.11 or later: pip install diffusers ({error})"
            ) from error
        import torch

        from .chat import pick_device

        self.entry, self.batch_size, self.resolution = PIPELINES[config.editor], config.batch_size, config.resolution
        self.guidances = guidances_of(config)
        model = config.editor_model or self.entry.model
        if model is None:
            raise SettingsError(
                f"editor {config.editor!r} has no weights in diffusers' format: convert them and name the "
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
            raise SettingsError(f"{model!r} is distilled and ignores its guidance: leave guidance_scales out")
        self.steps = {"num_inference_steps": config.steps} if config.steps else {}
        self.description = {
            "editor": config.editor,
            **describe_model(model, config.editor_revision),
            "dtype": config.dtype,
            "resolution": config.resolution,
            "steps": config.steps or defaults["num_inference_steps"].default,
            # the pipeline's, for candidates without their own
            "guidance": {
                name: defaults[name].default for name in (self.entry.guidance, self.entry.image_guidance) if name
            },
            "versions": library_versions("diffusers", "torch", "transformers"),
        }
        self.encoded: dict[int, Any] = {}  # latents of the sources of one call of `edit`

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size for `resolution`, see `working_size`."""
        return working_size(size, self.resolution)

    def edit(self, tasks: list[Task], candidates: list[list[Candidate]]) -> list[list[Edited]]:
        """Return one result per candidate of each task."""
        results: dict[tuple[int, int], Edited] = {}
        self.encoded = {}
        for guidance, places in by_guidance(candidates):
            for call in self.calls(places):
                chosen = [tasks[task] for task, _ in call]
                seeds = [candidates[task][number].seed for task, number in call]
                results |= zip(call, self.run(chosen, seeds, dict(guidance)), strict=True)
        return [[results[task, number] for number in range(len(candidates[task]))] for task in range(len(tasks))]

    def calls(self, places: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """Yield the (task, candidate) pairs of each call; only one task if a list of images is not a batch."""
        if self.entry.lists:
            yield from batched(places, self.batch_size)
            return
        for _, group in groupby(places, key=lambda place: place[0]):
            yield from batched(list(group), self.batch_size)

    def run(self, tasks: list[Task], seeds: list[int], guidance: dict[str, float]) -> list[Edited]:
        """Return one result per task and seed."""
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
        """Return images and prompts; each source is encoded once, whatever the number of its candidates."""
        if not self.entry.lists:
            return {"image": tasks[0].image, "prompt": tasks[0].instruction, "num_images_per_prompt": len(tasks)}
        # Not num_images_per_prompt: with several sources InstructPix2Pix mixes prompts and images of different pairs.
        images, prompts = [task.image for task in tasks], [task.instruction for task in tasks]
        if self.entry.name == "StableDiffusionInstructPix2PixPipeline":  # it accepts latents as images
            return {"image": self.latents(images), "prompt": prompts}
        return {"image": images, "prompt": prompts}

    def latents(self, images: list[Image.Image]) -> Any:
        """Return the encoded sources, [sources, 4, H / 8, W / 8]."""
        import torch

        vae = self.pipeline.vae
        new = list({id(image): image for image in images if id(image) not in self.encoded}.values())
        if new:
            pixels = self.pipeline.image_processor.preprocess(new).to(vae.device, vae.dtype)  # [sources, 3, H, W]
            with torch.no_grad():
                encoded = vae.encode(pixels).latent_dist.mode()  # [sources, 4, H / 8, W / 8]
            self.encoded |= dict(zip(map(id, new), encoded, strict=True))
        return torch.stack([self.encoded[id(image)] for image in images])


def by_guidance(
    candidates: list[list[Candidate]],
) -> list[tuple[tuple[tuple[str, float], ...], list[tuple[int, int]]]]:
    """Return (task, candidate) by guidance, since one call of a pipeline has one guidance."""
    groups: dict[tuple[tuple[str, float], ...], list[tuple[int, int]]] = {}
    for task, row in enumerate(candidates):
        for number, candidate in enumerate(row):
            groups.setdefault(candidate.guidance, []).append((task, number))
    return list(groups.items())
