"""Pairs whose images are encoded once, for everything that is asked about them: captions and likelihoods of sentences.

    about = EncodedPairs(model, processor, pairs)
    tokens = about.generate(num_beams=5)
    [scores] = about.log_likelihoods([["the cup is gone", "nothing has changed"]])

All sentences about a pair also share what the decoder has computed for images and prompt: only their own tokens pass
through it.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from modeling_blip2idc.processing_blip2idc import IGNORED, stack_rows

Pair = tuple[Any, Any]  # before, after: anything that the processor accepts as an image

SENTENCES = 40  # at a time: each needs logits over the whole vocabulary at all of its tokens


class EncodedPairs:
    """A batch of pairs, with their images as the decoder reads them.

    Args:
        pairs: (before, after), loaded by `processor.load_pair` or anything that it takes.
        text: prompt instead of the one in the processor's settings.
    """

    def __init__(self, model: Any, processor: Any, pairs: Sequence[Pair], text: str | None = None):
        befores, afters = zip(*pairs, strict=True)
        self.model, self.processor, self.text = model, processor, text
        inputs = processor(before=befores, after=afters, text=text).to(model.device)
        with torch.inference_mode():
            self.inputs = model.encode_images(**inputs)
        self._prompt: tuple[Any, torch.Tensor, torch.Tensor | None] | None = None  # see `_read_prompt`

    def __len__(self) -> int:
        return len(self.inputs["attention_mask"])

    def generate(self, **options: Any) -> torch.Tensor:
        """Return the new tokens only, [sentences, new].

        Args:
            options: keywords of transformers' `generate`.
        """
        with torch.inference_mode():
            return self.model.generate(**self.inputs, **options)

    @torch.inference_mode()
    def log_likelihoods(self, sentences: Sequence[Sequence[str]], batch_size: int = SENTENCES) -> list[list[float]]:
        """Return the natural logarithm of the probability of each sentence, with its end, about each pair.

        Args:
            sentences: about each pair, any number.
            batch_size: sentences at a time.
        """
        rows = [row for row, about in enumerate(sentences) for _ in about]
        targets = self.processor.target_tokens([text for about in sentences for text in about], self.text)
        score = self._score_targets if self.processor.settings.get("decoder_only") is False else self._score_answers
        found: list[float] = []
        for start in range(0, len(rows), batch_size):
            chunk = slice(start, start + batch_size)
            labels = stack_rows(targets[chunk], IGNORED, left=False).to(self.model.device)  # [S, T]
            found += score(torch.tensor(rows[chunk], device=labels.device), labels)
        left = iter(found)
        return [[next(left) for _ in about] for about in sentences]

    def _score_answers(self, rows: torch.Tensor, labels: torch.Tensor) -> list[float]:
        """Return the log-likelihoods of sentences that continue the prompt of a decoder.

        Args:
            rows: the pair of each sentence, [S].
            labels: its tokens, [S, T], IGNORED where there is none.
        """
        decoder, mask = self.model.caption_decoder, self.inputs["attention_mask"]
        if self._prompt is None:
            self._prompt = self._read_prompt()
        cache, logits, shift = self._prompt
        logits = logits[rows]
        tokens = labels[:, :-1].clamp(min=0)  # [S, T - 1]; what stands for no token comes last and changes nothing
        if tokens.shape[1]:
            cache = copy.deepcopy(cache)
            cache.reorder_cache(rows)
            places = mask.sum(dim=1)[rows, None] + torch.arange(tokens.shape[1], device=rows.device)
            rest = decoder(
                input_ids=tokens,
                attention_mask=torch.cat([mask[rows], torch.ones_like(tokens)], dim=1),
                position_ids=places if shift is None else (places + shift[rows]).expand(3, -1, -1),
                past_key_values=cache,
            )
            logits = torch.cat([logits, rest.logits], dim=1)
        return _sums(logits, labels)

    def _read_prompt(self) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        """Return a decoder's cache of images and prompt, the logits of the first token, [B, 1, V], and a shift.

        Some decoders count places in images otherwise than tokens: the shift, [B, 1], is the difference at the end.
        """
        decoder, inputs = self.model.caption_decoder, self.inputs
        if "inputs_embeds" in inputs:
            inputs = {name: value for name, value in inputs.items() if name != "input_ids"}
        if not hasattr(decoder.base_model, "rope_deltas"):  # else it counts the places itself
            inputs = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)}
        read = decoder(**inputs, use_cache=True, logits_to_keep=1)
        return read.past_key_values, read.logits, getattr(decoder.base_model, "rope_deltas", None)

    def _score_targets(self, rows: torch.Tensor, labels: torch.Tensor) -> list[float]:
        """Return the log-likelihoods of sentences of an encoder-decoder, see `_score_answers`."""
        decoder, mask = self.model.caption_decoder, self.inputs["attention_mask"]
        if self._prompt is None:
            embeds = {name: self.inputs[name] for name in ("inputs_embeds", "attention_mask")}
            self._prompt = decoder.get_encoder()(**embeds).last_hidden_state, mask, None
        encoded = BaseModelOutput(last_hidden_state=self._prompt[0][rows])
        given = decoder.prepare_decoder_input_ids_from_labels(labels)
        outputs = decoder(encoder_outputs=encoded, attention_mask=mask[rows], decoder_input_ids=given)
        return _sums(outputs.logits, labels)


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return (-losses.sum(dim=1)).tolist()  # a loss is 0 where the label is IGNORED
