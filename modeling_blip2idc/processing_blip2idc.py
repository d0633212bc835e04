"""Everything between two image files with their sentence and the tensors of the model.

    inputs = processor(before="a.png", after="b.png", captions="the red ball is gone")  # training
    inputs = processor(before=["a.png"], after=["b.png"])                               # generation

The settings (layout, canvas, blur, prompt, caption length) are saved in processor_config.json beside the weights.
"""

import os
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, BatchFeature, Blip2Config, Blip2Processor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils import logging

from .image_fusion import ImageError, Layout, cell_size, check_blur, fuse, load_image

logger = logging.get_logger(__name__)

IGNORED = -100  # the label that cross-entropy skips


class Blip2IdcProcessor(Blip2Processor):
    """Fuses the two images, normalises, tokenises, builds labels.

    Args:
        num_query_tokens: image tokens per row; 32, BLIP-2's number, when None.
        decoder_only: True for OPT, False for an encoder-decoder (FLAN-T5); when None, a tokenizer that ends every text
            with EOS by itself is taken for an encoder-decoder's.
        canvas: height and width of the fused picture, multiples of the vision patch size (the model checks).
        blur: sigma of a 3x3 Gaussian over each image before it is resized, in pixels of that image; 0: none. One fixed
            value, so that a pair always gives the same sentence (the paper draws it from 0.1 to 0.5 at each look).
        prompt: text before every caption, unless a call passes `text`.
        max_caption_length: tokens of a caption with its EOS; longer captions are cut, which is warned about once
            (128 keeps 99 % of Birds-to-Words, the benchmark with the longest sentences; short captions cost no more).
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        num_query_tokens: int | None = None,
        decoder_only: bool | None = None,
        layout: Layout = "vertical",
        canvas: tuple[int, int] | list[int] = (224, 224),
        prompt: str = "",
        max_caption_length: int = 128,
        blur: float = 0.0,
    ):
        if not isinstance(image_processor, BlipImageProcessorPil):
            # Where torchvision is installed the auto class picks its back-end, whose pixels differ a little.
            image_processor = BlipImageProcessorPil(**image_processor.to_dict())
        super().__init__(image_processor, tokenizer, 32 if num_query_tokens is None else num_query_tokens)
        cell_size(layout, canvas)
        check_blur(blur)
        if max_caption_length < 2:
            raise ValueError(f"max_caption_length must be at least 2 (a token and EOS), got {max_caption_length}.")
        self.decoder_only = not _ends_with_eos(tokenizer) if decoder_only is None else decoder_only
        self.layout = layout
        self.canvas = list(canvas)
        self.prompt = prompt
        self.max_caption_length = max_caption_length
        self.blur = blur

    @classmethod
    def from_blip2(cls, processor: "Blip2Processor | str | os.PathLike", **settings: Any) -> "Blip2IdcProcessor":
        """Ours from a plain BLIP-2 processor, or from the folder or Hub id of a BLIP-2 model."""
        if isinstance(processor, (str, os.PathLike)):
            settings = {**settings_of_model(AutoConfig.from_pretrained(processor)), **settings}
            processor = Blip2Processor.from_pretrained(processor)
        settings.setdefault("num_query_tokens", processor.num_query_tokens)
        return cls(processor.image_processor, processor.tokenizer, **settings)

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(str(self.image_token))

    def __call__(
        self,
        before: Any = None,
        after: Any = None,
        captions: str | list[str] | None = None,
        text: str | list[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Model inputs for one pair or, from lists, for many; with `captions` they hold labels."""
        befores, afters = _as_pairs(before, after)
        prompts = self._prompts(text, len(befores))
        pictures = [self._picture(*pair, index) for index, pair in enumerate(zip(befores, afters, strict=True))]
        # [B, 3, H, W]; fuse has already given the pictures their size
        pixel_values = self.image_processor(pictures, do_resize=False, return_tensors="pt")["pixel_values"]
        if captions is None:
            inputs = self._pad([self._head(prompt) for prompt in prompts], left=self.decoder_only)
        else:
            inputs = self._training_inputs(prompts, _as_texts(captions, len(befores), "captions"))
        return BatchFeature({"pixel_values": pixel_values, **inputs}, tensor_type=return_tensors)

    def _prompts(self, text: str | list[str] | None, count: int) -> list[str]:
        if text is None or isinstance(text, str):
            return [self.prompt if text is None else text] * count
        return _as_texts(text, count, "text")

    def _picture(self, before: Any, after: Any, index: int) -> Image.Image:
        images = [load_named_image(image, side, index) for side, image in (("before", before), ("after", after))]
        return fuse(*images, layout=self.layout, canvas=self.canvas, blur=self.blur)

    def _training_inputs(self, prompts: list[str], captions: list[str]) -> dict[str, torch.Tensor]:
        heads = [self._head(prompt) for prompt in prompts]
        tails = [self._tail(prompt, caption) for prompt, caption in zip(prompts, captions, strict=True)]
        if not self.decoder_only:
            return {**self._pad(heads, left=False), "labels": _stack(tails, IGNORED, left=False)}
        # Masked by position: OPT's BOS is its EOS, some tokenizers pad with EOS: ids do not tell what to skip.
        rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
        labels = [[IGNORED] * len(head) + tail for head, tail in zip(heads, tails, strict=True)]
        return {**self._pad(rows, left=False), "labels": _stack(labels, IGNORED, left=False)}

    def _head(self, prompt: str) -> list[int]:
        """What the language model is given: image tokens, then BOS and prompt (OPT) or prompt and EOS (T5)."""
        image_tokens = [self.image_token_id] * self.num_query_tokens
        if not self.decoder_only:
            return image_tokens + self._tokens(prompt) + [self.tokenizer.eos_token_id]
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        return image_tokens + bos + self._tokens(prompt)

    def _tail(self, prompt: str, caption: str) -> list[int]:
        """What the language model has to say: the caption and EOS, without which it would not learn to stop."""
        caption = caption.strip()
        if self.decoder_only and prompt and not prompt[-1].isspace():
            caption = " " + caption  # the word goes on after the prompt, as in generation
        tokens = self._tokens(caption)
        if len(tokens) >= self.max_caption_length:
            logger.warning_once(
                f"Captions longer than max_caption_length={self.max_caption_length} tokens (EOS included) are cut; "
                "raise this setting of the processor to keep them whole."
            )
        return tokens[: self.max_caption_length - 1] + [self.tokenizer.eos_token_id]

    def _tokens(self, text: str) -> list[int]:
        # A user's text may spell "<image>" or "</s>"; split into pieces, it stays text.
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self.image_token_id in ids:
            raise ValueError(f"{text!r} holds the image token {str(self.image_token)!r}; remove it from the text.")
        return ids

    def _pad(self, rows: list[list[int]], left: bool) -> dict[str, torch.Tensor]:
        pad_id = self.tokenizer.pad_token_id
        pad_id = self.tokenizer.eos_token_id if pad_id is None else pad_id
        mask = [[1] * len(row) for row in rows]
        return {"input_ids": _stack(rows, pad_id, left), "attention_mask": _stack(mask, 0, left)}


def settings_of_model(config: Blip2Config) -> dict[str, Any]:
    """The settings that a BLIP-2 model dictates; the canvas has the size that its vision model was trained on."""
    size = config.vision_config.image_size
    return {
        "num_query_tokens": config.num_query_tokens,
        "decoder_only": config.use_decoder_only_language_model,
        "canvas": [size, size],
    }


def load_named_image(image: Any, side: str, index: int) -> Image.Image:
    """`load_image` whose error says which image of which pair it was."""
    try:
        return load_image(image)
    except ImageError as error:
        raise ImageError(f"{side} image of pair {index} (counted from 0): {error}") from error


def _ends_with_eos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[-1] == tokenizer.eos_token_id


def _as_pairs(before: Any, after: Any) -> tuple[list[Any], list[Any]]:
    if before is None or after is None:
        raise ValueError(
            f"Both images are needed: before is {type(before).__name__}, after is {type(after).__name__}."
        )
    many = isinstance(before, (list, tuple))
    if many != isinstance(after, (list, tuple)):
        raise ValueError(
            "before and after must be two images or two lists, "
            f"got {type(before).__name__} and {type(after).__name__}."
        )
    befores, afters = (list(before), list(after)) if many else ([before], [after])
    if len(befores) != len(afters) or not befores:
        raise ValueError(
            f"before holds {len(befores)} images, after holds {len(afters)}: each pair needs one of both."
        )
    return befores, afters


def _as_texts(texts: str | list[str], count: int, name: str) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} must be strings, got {text!r}: one per pair.")
    if len(texts) != count:
        raise ValueError(f"{name} holds {len(texts)} texts for {count} pairs: pass one per pair.")
    return texts


def _stack(rows: list[list[int]], fill: int, left: bool) -> torch.Tensor:
    """Rows of different lengths as one tensor [B, T], filled up on the left or the right."""
    longest = max(len(row) for row in rows)
    fills = [[fill] * (longest - len(row)) for row in rows]
    return torch.tensor([gap + row if left else row + gap for row, gap in zip(rows, fills, strict=True)])
