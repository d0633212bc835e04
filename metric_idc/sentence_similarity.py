"""SentenceSimilarity: the cosine of the embeddings of a prediction and of its nearest reference.

It is computed only if a folder with a sentence-embedding model of sentence-transformers or transformers is given.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 128
POOLINGS = ("mean", "cls")


class SentenceSimilarity:
    """A metric with the embeddings of one model."""

    SCORES = ("SentenceSimilarity",)

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"{str(folder)!r} has no config.json; give a folder with a saved sentence model")
        self.pooling = read_pooling(self.folder)
        self.IMPLEMENTATION = (
            f"cosine of {self.folder.resolve().name} embeddings, {self.pooling} pooling, nearest reference"
        )

    def segment_statistics(self, systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
        """Return per system [pairs] the cosine with the nearest reference, of untokenized captions."""
        texts = list(dict.fromkeys(text for captions in [*systems, *references] for text in captions))
        position_of = {text: row for row, text in enumerate(texts)}
        vectors = self.embed(texts)

        def nearest(prediction: str, captions: list[str]) -> float:
            return float(max(vectors[position_of[prediction]] @ vectors[position_of[text]] for text in captions))

        return [np.array([nearest(*pair) for pair in zip(system, references, strict=True)]) for system in systems]

    @staticmethod
    def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
        """Return the mean over pairs."""
        return {"SentenceSimilarity": float(total / pairs)}

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return [texts, width] vectors of length 1."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        safe = {"trust_remote_code": False, "use_safetensors": True}
        model = AutoModel.from_pretrained(self.folder, dtype=torch.float32, **safe).to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        settings = _read(self.folder / "sentence_bert_config.json")
        longest = settings.get("max_seq_length") or min(tokenizer.model_max_length, 512)
        if settings.get("do_lower_case"):
            texts = [text.lower() for text in texts]
        vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")  # little padding in a batch
        with torch.inference_mode():
            for first in range(0, len(texts), BATCH):
                batch = order[first : first + BATCH]
                inputs = tokenizer(
                    [texts[number] for number in batch],
                    padding=True,
                    truncation=True,
                    max_length=longest,
                    return_tensors="pt",
                ).to(device)
                states = model(**inputs).last_hidden_state  # [batch, tokens, width]
                if self.pooling == "mean":
                    mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
                    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
                else:
                    pooled = states[:, 0]
                vectors[batch] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors


def read_pooling(folder: Path) -> str:
    """Return the pooling that the files of sentence-transformers name; "mean" without such files.

    Raises: ValueError for a pooling or module that is not supported.
    """
    known = ("Transformer", "Pooling", "Normalize")  # the cosine normalizes anyway
    for module in _read(folder / "modules.json", default=[]):
        name = module["type"].rsplit(".", 1)[-1]
        if name not in known:
            raise ValueError(f"{str(folder)!r} has a module {name!r}; only {', '.join(known)} are supported")
    settings = _read(folder / "1_Pooling" / "config.json")
    chosen = [
        key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for key in settings
        if key.startswith("pooling_mode_") and settings[key] is True
    ]
    chosen = chosen or [settings.get("pooling_mode", "mean")]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise ValueError(f"{str(folder)!r} pools by {' and '.join(chosen)}; only {' or '.join(POOLINGS)} is supported")
    return chosen[0]


def _read(path: Path, default: Any = None) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default or {}
