"""From two images and a caption to the tensors of the model.

    inputs = processor(before="a.png", after="b.png", captions="the red ball is gone")  # training
    inputs = processor(before=["a.png"], after=["b.png"])                               # generation

`processor.settings` is everything that decides what the network sees; it is saved in processor_config.json next to
the weights.
"""

import os
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, BatchFeature, Blip2Config, Blip2Processor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils import logging

from .image_fusion import Cell, ImageError, Layout, cell_size, check_blur, is_same_file, join, load_cell

logger = logging.get_logger(__name__)

IGNORED = -100  # the label that cross-entropy skips
SETTINGS = (
    *("layout", "canvas", "blur", "prompt", "max_caption_length", "num_query_tokens", "decoder_only"),
    "scaled_decoding",
)


class Blip2IdcProcessor(Blip2Processor):
    """Processor that fuses the two images, normalises, tokenises and builds labels.

    Args:
        num_query_tokens: image tokens per row; 32, BLIP-2's number, when None.
        decoder_only: True for OPT, False for an encoder-decoder (FLAN-T5); when None, a tokenizer that appends EOS to
            every text is taken for an encoder-decoder's.
        layout: "vertical" puts before on top of after (the paper's), "horizontal" puts it on the left.
        canvas: height and width of the fused picture in pixels, multiples of the vision patch size (the model checks).
        blur: sigma of a 3x3 Gaussian over each image before it is resized, in pixels of that image; 0 means none. It
            is fixed, so that a pair always gives the same sentence (the paper draws it from 0.1 to 0.5 each time).
        prompt: text before every caption, unless a call passes `text`.
        max_caption_length: tokens of a caption with its EOS; longer captions are cut, with one warning (128 keeps 99 %
            of Birds-to-Words, the benchmark with the longest sentences; short captions cost no more).
        scaled_decoding: False for exact comparisons: JPEG files are decoded as a whole and images resized with Pillow
            (see `load_cell`), which is slower; the pixels differ by less than 0.005 of their range on average.

    Raises: ValueError that quotes an impossible value.
    """

    _auto_class = "AutoProcessor"
    loads_each_alone = True  # an image is loaded in the same way on both sides of any pair

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
        scaled_decoding: bool = True,
    ):
        if not isinstance(image_processor, BlipImageProcessorPil):
            # Where torchvision is installed, the auto class chooses its back-end, whose pixels differ slightly.
            image_processor = BlipImageProcessorPil(**image_processor.to_dict())
        num_query_tokens = 32 if num_query_tokens is None else num_query_tokens
        if type(num_query_tokens) is not int or num_query_tokens < 1:
            raise ValueError(f"num_query_tokens must be a whole number from 1, got {num_query_tokens!r}.")
        if not isinstance(decoder_only, (bool, type(None))):
            raise ValueError(f"decoder_only must be true or false, got {decoder_only!r}.")
        super().__init__(image_processor, tokenizer, num_query_tokens)
        if not isinstance(canvas, (list, tuple)):
            raise ValueError(f"canvas must be a list of two whole numbers, height and width; got {canvas!r}.")
        cell_size(layout, canvas)
        check_blur(blur)
        if not isinstance(prompt, str):
            raise ValueError(f"prompt must be a text, got {prompt!r}.")
        if type(max_caption_length) is not int or max_caption_length < 2:
            raise ValueError(
                f"max_caption_length must be a whole number from 2 (a token and EOS), got {max_caption_length!r}."
            )
        check_scaled_decoding(scaled_decoding)
        self.decoder_only = not _ends_with_eos(tokenizer) if decoder_only is None else decoder_only
        self.layout = layout
        self.canvas = list(canvas)
        self.prompt = prompt
        self.max_caption_length = max_caption_length
        self.blur = blur
        self.scaled_decoding = scaled_decoding

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that decide what the network sees of a pair, ready for JSON."""
        return {name: getattr(self, name) for name in SETTINGS}

    def with_settings(self, **changes: Any) -> "Blip2IdcProcessor":
        """Return a processor with some settings changed.

        Raises: ValueError for an unknown name or an impossible value.
        """
        return type(self)(self.image_processor, self.tokenizer, **changed_settings(self.settings, changes))

    @classmethod
    def from_blip2(cls, processor: "Blip2Processor | str | os.PathLike", **settings: Any) -> "Blip2IdcProcessor":
        """Return a processor made from a plain BLIP-2 processor, or from the folder or Hub id of a BLIP-2 model."""
        if isinstance(processor, (str, os.PathLike)):
            config = AutoConfig.from_pretrained(processor, trust_remote_code=False)
            settings = {**settings_of_model(config), **settings}
            processor = Blip2Processor.from_pretrained(processor, trust_remote_code=False)
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
        """Return model inputs for one pair or, from lists, for many; with `captions` they include labels.

        Args:
            before, after: images as `load_image` takes them or what `load_pair` returns, or two lists of these.
            captions: one per pair; the labels are -100 on image tokens, prompt, BOS and padding.
            text: prompt for this call, instead of the one in the settings; one for all pairs or one per pair.

        Returns: `pixel_values` [B, 3, H, W] and `input_ids`, `attention_mask` (and `labels`) [B, T].

        Raises: ValueError for arguments that do not match; ImageError that names side and pair of an unreadable image.
        """
        befores, afters = as_pairs(before, after)
        prompts = prompts_of(text, self.prompt, len(befores))
        pairs = [
            self.load_pair(*pair, f"pair {index} (counted from 0)")
            for index, pair in enumerate(zip(befores, afters, strict=True))
        ]
        pixel_values = self._normalised(torch.stack([join(*pair, self.layout).pixels for pair in pairs]))
        if captions is None:
            inputs = self._pad([self._prompt_tokens(prompt) for prompt in prompts], left=self.decoder_only)
        else:
            inputs = self._training_inputs(prompts, as_texts(captions, len(befores), "captions"))
        return BatchFeature({"pixel_values": pixel_values, **inputs}, tensor_type=return_tensors)

    def target_tokens(self, captions: list[str], text: str | list[str] | None = None) -> list[list[int]]:
        """Return what the model is to generate for each caption, EOS included.

        Args:
            text: prompt for this call, instead of the one in the settings; one for all or one per caption.
        """
        prompts = prompts_of(text, self.prompt, len(captions))
        return [self._target_tokens(*each) for each in zip(prompts, captions, strict=True)]

    def without_images(self, captions: list[str]) -> BatchFeature:
        """Return the inputs of pairs and their captions but `pixel_values`, for a model that has `vision_features`."""
        return BatchFeature(self._training_inputs([self.prompt] * len(captions), captions))

    def load_pair(self, before: Any, after: Any, name: str) -> tuple[Cell, Cell]:
        """Return both images of a pair at the size of their cells, to be given to this processor as images.

        Photographs loaded like this need little memory while they wait for their batch.

        Args:
            before, after: images as `load_image` takes them.
            name: what errors call the pair.

        Raises: ImageError that names pair and side of an unreadable image.
        """
        first = self._load_cell(before, f"before image of {name}")
        return first, first if is_same_file(before, after) else self._load_cell(after, f"after image of {name}")

    def _load_cell(self, image: Any, name: str) -> Cell:
        height, width = cell_size(self.layout, self.canvas)
        try:
            return load_cell(image, (width, height), self.blur, self.scaled_decoding)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error

    def pictures(self, pair: tuple[Cell, Cell]) -> list[Image.Image]:
        """Return the one picture that the network sees of a pair, which `load_pair` has returned."""
        return [join(*pair, self.layout).picture]

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the image processor makes of pixels of one byte, [B, 3, H, W], as float32."""
        images, mean, deviation = self.image_processor, 0.0, 1.0
        if images.do_normalize:
            mean, deviation = (
                torch.tensor(values, dtype=torch.float64)[:, None, None]  # [3, 1, 1]
                for values in (images.image_mean, images.image_std)
            )
        factor = images.rescale_factor if images.do_rescale else 1.0
        scale, shift = (torch.as_tensor(value).float() for value in (factor / deviation, mean / deviation))
        return pixels.float().mul_(scale).sub_(shift)

    def _training_inputs(self, prompts: list[str], captions: list[str]) -> dict[str, torch.Tensor]:
        given = [self._prompt_tokens(prompt) for prompt in prompts]
        targets = self.target_tokens(captions, prompts)
        if not self.decoder_only:
            return {**self._pad(given, left=False), "labels": stack_rows(targets, IGNORED, left=False)}
        # Masked by position, not by id: OPT's BOS is its EOS, and some tokenizers pad with EOS.
        rows = [prompt + target for prompt, target in zip(given, targets, strict=True)]
        labels = [[IGNORED] * len(prompt) + target for prompt, target in zip(given, targets, strict=True)]
        return {**self._pad(rows, left=False), "labels": stack_rows(labels, IGNORED, left=False)}

    def _prompt_tokens(self, prompt: str) -> list[int]:
        """Return the input of the language model: image tokens, then BOS and prompt (OPT) or prompt and EOS (T5)."""
        image_tokens = [self.image_token_id] * self.num_query_tokens
        if not self.decoder_only:
            return image_tokens + self._tokens(prompt) + [self.tokenizer.eos_token_id]
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        return image_tokens + bos + self._tokens(prompt)

    def _target_tokens(self, prompt: str, caption: str) -> list[int]:
        """Return the target tokens: the caption and EOS, so that the model learns to stop."""
        caption = caption.strip()
        if self.decoder_only and prompt and not prompt[-1].isspace():
            caption = " " + caption  # as generation continues after the prompt
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
            raise ValueError(f"{text!r} contains the image token {str(self.image_token)!r}; remove it from the text.")
        return ids

    def _pad(self, rows: list[list[int]], left: bool) -> dict[str, torch.Tensor]:
        pad_id = self.tokenizer.pad_token_id
        pad_id = self.tokenizer.eos_token_id if pad_id is None else pad_id
        mask = [[1] * len(row) for row in rows]
        return {"input_ids": stack_rows(rows, pad_id, left), "attention_mask": stack_rows(mask, 0, left)}


def settings_of_model(config: Blip2Config) -> dict[str, Any]:
    """Return the settings that a BLIP-2 model dictates; the canvas is as large as its vision model's images."""
    size = config.vision_config.image_size
    return {
        "num_query_tokens": config.num_query_tokens,
        "decoder_only": config.use_decoder_only_language_model,
        "canvas": [size, size],
    }


def check_scaled_decoding(scaled_decoding: Any) -> None:
    """Raise ValueError unless this setting of a processor is true or false."""
    if not isinstance(scaled_decoding, bool):
        raise ValueError(f"scaled_decoding must be true or false, got {scaled_decoding!r}.")


def changed_settings(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's settings with changes. Raises: ValueError for one that it does not have."""
    unknown = sorted(set(changes) - set(settings))
    if unknown:
        raise ValueError(f"unknown processor setting {unknown[0]!r}: use any of {', '.join(settings)}.")
    return {**settings, **changes}


def prompts_of(text: str | list[str] | None, default: str, count: int) -> list[str]:
    """Return one prompt per pair: `text`, which may be one for all, or else the default."""
    if text is None or isinstance(text, str):
        return [default if text is None else text] * count
    return as_texts(text, count, "text")


def _ends_with_eos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[-1] == tokenizer.eos_token_id


def as_pairs(before: Any, after: Any) -> tuple[list[Any], list[Any]]:
    """Return two lists of images. Raises: ValueError for one that is missing, or lists that do not match."""
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
        raise ValueError(f"before has {len(befores)} images, after has {len(afters)}: each pair needs one of both.")
    return befores, afters


def as_texts(texts: str | list[str], count: int, name: str) -> list[str]:
    """Return a list of one text per pair. Raises: ValueError for another number, or something else than text."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} must be strings, got {text!r}: one per pair.")
    if len(texts) != count:
        raise ValueError(f"{name} has {len(texts)} texts for {count} pairs: pass one per pair.")
    return texts


def stack_rows(rows: list[list[int]], fill: int, left: bool) -> torch.Tensor:
    """Return rows of different lengths as one tensor [B, T], padded on the left or the right."""
    longest = max(len(row) for row in rows)
    fills = [[fill] * (longest - len(row)) for row in rows]
    return torch.tensor([gap + row if left else row + gap for row, gap in zip(rows, fills, strict=True)])
