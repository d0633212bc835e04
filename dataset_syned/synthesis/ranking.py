"""Third stage: how well each candidate follows its instruction and keeps to its source, by pixels and any CLIP."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from .chat import pick_device
from .settings import SynthesisConfig, told_model
from .shards import Row, batched
from .sources import upright

SMALL = 64  # pixels of the side that both images are brought to: a codec's noise is gone then, an edit is not
VISIBLE = 20  # of 255, in any channel


def difference(before: Image.Image, after: Image.Image) -> dict[str, float]:
    """`changed`: the share of the picture that looks different; `contrast`: of the after image, 0 for one colour."""
    small = [
        np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX), dtype=np.int16) for image in (before, after)
    ]
    changed = np.abs(small[0] - small[1]).max(axis=-1) >= VISIBLE  # [SMALL, SMALL]
    return {"changed": float(changed.mean()), "contrast": float(small[1].std())}


class Clip:
    """Normalised embeddings of any model of the CLIP family."""

    def __init__(self, model: str, revision: str | None, batch_size: int):
        from transformers import AutoModel, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(model, revision=revision, backend="pil")
        self.model = AutoModel.from_pretrained(model, revision=revision).to(pick_device()).eval()
        self.batch_size = batch_size
        self.told = told_model(model, revision)

    def _embed(self, items: list[Any], one_batch: Any) -> torch.Tensor:
        rows = [one_batch(batch) for batch in batched(items, self.batch_size)]
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1).cpu()  # [items, D]

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> torch.Tensor:
        def one_batch(batch: list[Image.Image]) -> torch.Tensor:
            inputs = self.processor(images=batch, return_tensors="pt").to(self.model.device)
            return self.model.get_image_features(**inputs).pooler_output

        return self._embed(images, one_batch)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> torch.Tensor:
        def one_batch(batch: list[str]) -> torch.Tensor:
            # all of one length: SigLIP was trained so and takes no mask, CLIP's text does not depend on it
            length = self.model.config.text_config.max_position_embeddings
            inputs = self.processor(
                text=batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            return self.model.get_text_features(**inputs.to(self.model.device)).pooler_output

        return self._embed(texts, one_batch)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """None where it is no number: JSON has no NaN."""
    value = float(torch.nn.functional.cosine_similarity(a, b, dim=-1))
    return value if math.isfinite(value) else None


def digest(image: dict[str, Any] | None) -> str:
    return hashlib.sha256(image["bytes"]).hexdigest() if image else ""


class Ranking:
    """Rows: models, and per candidate: scores (changed, contrast and, with a CLIP, image_text, image_image,
    directional), editor_problems, digests.

    The text is the caption of the edited image, where the source tells it, and else the instruction. Directional
    similarity (InstructPix2Pix's) compares the way from image to image with that from caption to caption.
    """

    needs, looks = ("sources", "instructions", "edits"), True

    def __init__(self, config: SynthesisConfig):
        self.batch_size = max(1, config.batch_size // config.candidates)
        self.clip = Clip(config.clip, config.clip_revision, config.batch_size) if config.clip else None

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        return [self.one(inputs) for inputs in batch]

    def one(self, inputs: dict[str, Row]) -> Row:
        before = upright(inputs["sources"]["image"]["bytes"])
        candidates = inputs["edits"]["candidates"]
        made = {
            number: upright(candidate["image"]["bytes"])
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
            "digests": [
                hashlib.sha256(one["image"]["bytes"]).hexdigest() if one["image"] else "" for one in candidates
            ],
            "models": {"clip": self.clip.told} if self.clip else {},
            "problem": "",
        }

    def similarities(self, row: Row, before: Image.Image, after: list[Image.Image]) -> list[dict[str, float | None]]:
        known = row["caption_before"] and row["caption_after"]
        texts = [row["caption_after"] or row["instruction"], *([row["caption_before"]] if known else [])]
        first, *others = self.clip.images([before, *after])
        said, *told = self.clip.texts(texts)
        found = []
        for other in others:
            one = {"image_text": cosine(other, said), "image_image": cosine(first, other)}
            if told:
                one["directional"] = cosine(other - first, said - told[0])
            found.append(one)
        return found
