"""CLIPScore and RefCLIPScore (Hessel et al. 2021): does the sentence fit the image after the change?

It is computed only if a folder with a CLIP model and the images are given. CLIPScore sees one image and no difference:
it measures whether what the caption names is visible, so that captions of removed objects score low.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

WEIGHT = 2.5
PREFIX = "A photo depicts "  # of the official implementation
BATCH = 64


class ClipScore:
    """A metric with one CLIP model and the images of the scored pairs."""

    SCORES = ("CLIPScore", "RefCLIPScore")

    def __init__(self, folder: str | Path, images: Iterable[Any] | None) -> None:
        """Check the folder.

        Args:
            images: the pairs' images after, PIL, RGB, in the order of the rows; they are read one batch at a time.
        """
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"{str(folder)!r} has no config.json; give a folder with a saved CLIP model")
        if images is None:
            raise ValueError("CLIPScore needs images: the image after of every row, in the order of the rows")
        self.images = images
        self.IMPLEMENTATION = (
            f"{self.folder.resolve().name} on the after image, w = {WEIGHT}, prefix {PREFIX.strip()!r} "
            "(Hessel et al. 2021)"
        )

    def segment_statistics(self, systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
        """Return per system [pairs, 2] both scores, of untokenized captions."""
        import torch
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = CLIPModel.from_pretrained(self.folder, dtype=torch.float32, use_safetensors=True).to(device).eval()
        with torch.inference_mode():
            seen = _embed_images(model, AutoImageProcessor.from_pretrained(self.folder, backend="pil"), self.images)
            if len(seen) != len(references):
                raise ValueError(f"{len(seen)} images for {len(references)} rows; give each row its image after")
            texts = list(dict.fromkeys(text for captions in [*systems, *references] for text in captions))
            vectors = dict(
                zip(texts, _embed_texts(model, AutoTokenizer.from_pretrained(self.folder), texts), strict=True)
            )
        return [self._scores(system, references, seen, vectors) for system in systems]

    @staticmethod
    def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
        """Return the means over pairs."""
        return dict(zip(ClipScore.SCORES, (total / pairs).tolist(), strict=True))

    @staticmethod
    def _scores(
        predictions: list[str], references: list[list[str]], images: np.ndarray, vectors: dict[str, np.ndarray]
    ) -> np.ndarray:
        scores = np.zeros((len(predictions), 2))
        for row, (prediction, captions) in enumerate(zip(predictions, references, strict=True)):
            vector = vectors[prediction]
            image = WEIGHT * max(float(vector @ images[row]), 0.0)
            text = max(0.0, *(float(vector @ vectors[caption]) for caption in captions))
            scores[row] = image, 2 * image * text / (image + text) if image + text else 0.0
        return scores


def _embed_images(model: Any, processor: Any, images: Iterable[Any]) -> np.ndarray:
    """Return [images, width] vectors of length 1."""
    iterator, parts = iter(images), []
    while batch := list(islice(iterator, BATCH)):
        inputs = processor(images=batch, return_tensors="pt").to(model.device)
        parts.append(_normalized(model.get_image_features(**inputs).pooler_output))
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def _embed_texts(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Return [texts, width] vectors of length 1."""
    longest, parts = model.config.text_config.max_position_embeddings, []
    for first in range(0, len(texts), BATCH):
        inputs = tokenizer(
            [PREFIX + text for text in texts[first : first + BATCH]],
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(model.device)
        parts.append(_normalized(model.get_text_features(**inputs).pooler_output))
    return np.concatenate(parts)


def _normalized(vectors: Any) -> np.ndarray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().cpu().numpy()
