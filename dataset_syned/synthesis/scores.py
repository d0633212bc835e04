"""Third stage: how well each candidate follows its instruction and keeps its source, by pixels and any CLIP."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..pairs import decode_image
from .chat import pick_device
from .settings import SynthesisConfig, describe_model
from .shards import Row, batched

SMALL = 64  # pixels per side of both images when compared: it removes compression noise, not edits
VISIBLE = 20  # of 255, in any channel


def difference(before: Image.Image, after: Image.Image) -> dict[str, float]:
    """Return `changed`, the visibly different share of the picture, and the after image's `contrast`."""
    small = [
        np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX), dtype=np.int16) for image in (before, after)
    ]
    changed = np.abs(small[0] - small[1]).max(axis=-1) >= VISIBLE  # [SMALL, SMALL]
    return {"changed": float(changed.mean()), "contrast": float(small[1].std())}


class Clip:
    """Normalised embeddings of any model of the CLIP family."""

    def __init__(self, model: str, revision: str | None, batch_size: int):
        from transformers import AutoModel, AutoProcessor

        place = {"revision": revision, "trust_remote_code": False}  # it is never asked whether to run foreign code
        self.processor = AutoProcessor.from_pretrained(model, backend="pil", **place)
        self.model = AutoModel.from_pretrained(model, use_safetensors=True, **place).to(pick_device()).eval()
        self.batch_size = batch_size
        self.description = describe_model(model, revision)

    def _embed(self, items: list[Any], embed_batch: Any) -> torch.Tensor:
        rows = [embed_batch(batch) for batch in batched(items, self.batch_size)]
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1).cpu()  # [items, D]

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> torch.Tensor:
        def embed_batch(batch: list[Image.Image]) -> torch.Tensor:
            inputs = self.processor(images=batch, return_tensors="pt").to(self.model.device)
            return self.model.get_image_features(**inputs).pooler_output

        return self._embed(images, embed_batch)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> torch.Tensor:
        def embed_batch(batch: list[str]) -> torch.Tensor:
            # all of one length: SigLIP was trained so and takes no mask; CLIP does not depend on it
            length = self.model.config.text_config.max_position_embeddings
            inputs = self.processor(
                text=batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            return self.model.get_text_features(**inputs.to(self.model.device)).pooler_output

        return self._embed(texts, embed_batch)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Return the cosine similarity, or None if it is not finite, since JSON has no NaN."""
    value = float(torch.nn.functional.cosine_similarity(a, b, dim=-1))
    return value if math.isfinite(value) else None


def digest(image: dict[str, Any] | None) -> str:
    return hashlib.sha256(image["bytes"]).hexdigest() if image else ""


class Scores:
    """Stage whose rows have models and, per candidate, scores, editor_problems and digests.

    The scores are changed, contrast and, with a CLIP, image_text, image_image and directional.

    The text is the caption of the edited image if the source has one, else the instruction. Directional
    similarity (InstructPix2Pix's) compares the way from image to image with that from caption to caption.
    """

    inputs, reads_images = ("sources", "instructions", "edits"), True

    def __init__(self, config: SynthesisConfig):
        self.batch_size = max(1, config.batch_size // config.candidates)
        self.clip = Clip(config.clip, config.clip_revision, config.batch_size) if config.clip else None

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        return [self.score_pair(inputs) for inputs in batch]

    def score_pair(self, inputs: dict[str, Row]) -> Row:
        before = decode_image(inputs["sources"]["image"])
        candidates = inputs["edits"]["candidates"]
        made = {
            number: decode_image(candidate["image"])
            for number, candidate in enumerate(candidates)
            if not candidate["problem"]
        }
        scores = [difference(before, made[number]) if number in made else None for number in range(len(candidates))]
        if self.clip and made:
            found = self.similarities(inputs["instructions"], before, [*made.values()])
            for number, more in zip(made, found, strict=True):
                scores[number] |= more
        return {
            "scores": scores,
            "editor_problems": [candidate["problem"] for candidate in candidates],
            "digests": [digest(candidate["image"]) for candidate in candidates],
            "models": {"clip": self.clip.description} if self.clip else {},
            "problem": "",
        }

    def similarities(self, row: Row, before: Image.Image, after: list[Image.Image]) -> list[dict[str, float | None]]:
        known = row["caption_before"] and row["caption_after"]
        texts = [row["caption_after"] or row["instruction"], *([row["caption_before"]] if known else [])]
        first, *others = self.clip.images([before, *after])
        after_text, *before_text = self.clip.texts(texts)
        found = []
        for other in others:
            similarity = {"image_text": cosine(other, after_text), "image_image": cosine(first, other)}
            if before_text:
                similarity["directional"] = cosine(other - first, after_text - before_text[0])
            found.append(similarity)
        return found
