"""A pair of images as one turn of a chat: the processor of vision-language models.

    inputs = processor(before="a.png", after="b.png", captions="the red ball is gone")  # training
    inputs = processor(before=["a.png"], after=["b.png"])                               # generation

`processor.settings` is everything that decides what the network sees; it is saved in processor_config.json next to
the adapter. The rest, transformers' own processor, is read from the base model.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature
from transformers.utils import (
    CHAT_TEMPLATE_FILE,
    IMAGE_PROCESSOR_NAME,
    LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE,
    PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
    cached_file,
    logging,
)

from common_idc.strict_json import parse_json
from modeling_blip2idc.image_fusion import Cell, ImageError, Size, is_same_file, join, load_cell
from modeling_blip2idc.processing_blip2idc import (
    IGNORED,
    as_pairs,
    as_texts,
    changed_settings,
    check_scaled_decoding,
    prompts_of,
)

from .chat_models import takes

logger = logging.get_logger(__name__)

PairLayout = Literal["two_images", "vertical", "horizontal", "two_frames"]
LAYOUTS: tuple[PairLayout, ...] = ("two_images", "vertical", "horizontal", "two_frames")
SETTINGS = ("layout", "prompt", "pixels", "max_caption_length", "scaled_decoding")
CLASS_NAME = "ChatPairProcessor"  # in an adapter's processor_config.json; no class of transformers has this name
# What transformers reads to build the base's processor, besides the tokenizer's files.
BASE_FILES = (
    PROCESSOR_NAME,
    IMAGE_PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
    CHAT_TEMPLATE_FILE,
    LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE,
)
PROMPT = "What changed between the two images? Answer in one sentence."
PIXELS = 512 * 512  # per image: 256 tokens of Qwen3-VL
MOST_PIXELS = 4096 * 4096
TILING = ("crop_to_patches", "do_image_splitting", "do_pan_and_scan")  # names of one option: encode parts of an image
THINKING = "enable_thinking"  # the switch of templates whose models think before they answer


def fit(size: tuple[int, int], pixels: int, unit: int = 1) -> tuple[int, int]:
    """Return width and height of at most `pixels`, in multiples of `unit`; a smaller image keeps its size."""
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    width, height = (max(unit, math.floor(side * scale / unit) * unit) for side in size)
    return width, height


@dataclass(frozen=True)
class FixedSize:
    """Each image takes a number of tokens that its family fixes.

    Args:
        area: image processor -> pixels that the encoder sees of an image; None if it does not say.
    """

    area: Callable[[Any], int | None] = lambda images: _square(images) and _square(images) ** 2

    def default(self, images: Any) -> int:
        return self.area(images) or PIXELS

    def check(self, images: Any, pixels: int) -> None:
        if self.area(images) not in (None, pixels):
            raise ValueError(f"pixels={pixels}: this model sees every image at {self.area(images)} pixels.")

    def limits(self, images: Any, pixels: int) -> tuple[int, int]:
        return 4 * pixels, 1  # twice the side, because the image processor may squash it to a square

    def cell_size(self, images: Any, pixels: int, size: tuple[int, int], vertical: bool) -> tuple[int, int]:
        side = _square(images)
        if side is None:
            return fit(size, pixels // 2)
        return (side, side // 2) if vertical else (side // 2, side)

    def options(self, images: Any, pixels: int, canvas: bool) -> dict[str, Any]:
        return {name: False for name in TILING if takes(images, name)}


def _square(images: Any) -> int | None:
    size = dict(images.size or {})
    return size["height"] if size.get("height") and size.get("height") == size.get("width") else None


@dataclass(frozen=True)
class AnySize:
    """The tokens of an image grow with its area, and its own shape is kept.

    Args:
        frames: how often the family's limits count an image.
    """

    frames: int = 1

    def default(self, images: Any) -> int:
        return PIXELS

    def check(self, images: Any, pixels: int) -> None:
        if pixels < self._unit(images) ** 2:
            raise ValueError(f"pixels={pixels}: this model needs at least {self._unit(images) ** 2}.")

    def _unit(self, images: Any) -> int:
        return images.patch_size * images.merge_size

    def limits(self, images: Any, pixels: int) -> tuple[int, int]:
        return pixels, self._unit(images)

    def cell_size(self, images: Any, pixels: int, size: tuple[int, int], vertical: bool) -> tuple[int, int]:
        return fit(size, *self.limits(images, pixels))

    def options(self, images: Any, pixels: int, canvas: bool) -> dict[str, Any]:
        least = min(dict(images.size)["shortest_edge"] // self.frames, pixels)
        # a canvas has two images
        times = self.frames * (2 if canvas else 1)
        return {"size": {"shortest_edge": least * times, "longest_edge": pixels * times}}


@dataclass(frozen=True)
class Tiles:
    """An image is enlarged to whole tiles, each of a fixed number of tokens, and a thumbnail; or is one tile."""

    def default(self, images: Any) -> int:
        return self._tile(images) ** 2

    def check(self, images: Any, pixels: int) -> None:
        pass  # fewer than a tile are a tile

    def _tile(self, images: Any) -> int:
        return dict(images.max_image_size)["longest_edge"]

    def limits(self, images: Any, pixels: int) -> tuple[int, int]:
        return 4 * max(pixels, self._tile(images) ** 2), 1

    def cell_size(self, images: Any, pixels: int, size: tuple[int, int], vertical: bool) -> tuple[int, int]:
        tile = self._tile(images)
        return (tile, tile // 2) if vertical else (tile // 2, tile)

    def options(self, images: Any, pixels: int, canvas: bool) -> dict[str, Any]:
        tile = self._tile(images)
        tiles = 1 if canvas else max(1, math.isqrt(pixels) // tile)  # along the longer side
        return {"size": {"longest_edge": tiles * tile}, "do_image_splitting": tiles > 1}


Sizes = FixedSize | AnySize | Tiles


def guess_sizes(images: Any) -> Sizes:
    """Return what an unknown family's image processor probably does, by the options that it knows."""
    if takes(images, "max_image_size"):
        return Tiles()
    return AnySize() if takes(images, "merge_size") and "longest_edge" in dict(images.size) else FixedSize()


class ChatPairProcessor:
    """Processor that turns a pair into a question to a chat model, tokenises it and builds labels.

    Args:
        processor: transformers' own.
        base: folder or Hub id that it was read from, and revision.
        sizes: how the family turns `pixels` into tokens.
        two_frames: whether the family can see the pair as two frames of one patch, see `layout`.
        layout: "two_images" gives both to the model one after the other; "vertical" and "horizontal" put them on one
            canvas, which is never cut into tiles; "two_frames" makes them the two moments that a patch of a video has.
        prompt: the question, unless a call passes `text`.
        pixels: of each image, at most; None for the family's own, which is the only one where its tokens are fixed.
        max_caption_length: tokens of a caption with its end; longer captions are cut, with one warning.
        scaled_decoding: False for exact comparisons: JPEG files are decoded as a whole and images resized with Pillow
            (see `load_cell`), which is slower.

    Raises: ValueError that quotes an impossible value.
    """

    def __init__(
        self,
        processor: Any,
        base: tuple[str, str | None],
        sizes: Sizes,
        two_frames: bool = False,
        layout: PairLayout = "two_images",
        prompt: str = PROMPT,
        pixels: int | None = None,
        max_caption_length: int = 128,
        scaled_decoding: bool = True,
    ):
        self.processor, self.base, self.sizes, self.two_frames = processor, base, sizes, two_frames
        allowed = [name for name in LAYOUTS if two_frames or name != "two_frames"]
        if layout not in allowed:
            raise ValueError(f"layout must be one of {', '.join(allowed)} for this model, got {layout!r}.")
        if not isinstance(prompt, str):
            raise ValueError(f"prompt must be a text, got {prompt!r}.")
        pixels = sizes.default(self.image_processor) if pixels is None else pixels
        if type(pixels) is not int or not 0 < pixels <= MOST_PIXELS:
            raise ValueError(f"pixels must be a whole number from 1 to {MOST_PIXELS}, got {pixels!r}.")
        sizes.check(self.image_processor, pixels)
        if type(max_caption_length) is not int or max_caption_length < 2:
            raise ValueError(
                f"max_caption_length must be a whole number from 2 (a token and its end), got {max_caption_length!r}."
            )
        check_scaled_decoding(scaled_decoding)
        self.layout, self.prompt, self.pixels, self.max_caption_length = layout, prompt, pixels, max_caption_length
        self.scaled_decoding = scaled_decoding
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = special | set(self.tokenizer.all_special_ids)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def image_processor(self) -> Any:
        return self.processor.image_processor

    @property
    def loads_each_alone(self) -> bool:
        """Whether an image is loaded in the same way on both sides of any pair; else the first decides on sizes."""
        return self.layout == "two_images"

    @property
    def chat_template(self) -> str:
        return self.processor.chat_template

    @property
    def limits(self) -> tuple[int, int]:
        """The arguments of `fit` that give an image the size at which it is handed to transformers' processor."""
        return self.sizes.limits(self.image_processor, self.pixels)

    @property
    def image_options(self) -> dict[str, Any]:
        """What the settings change in transformers' image processor."""
        return self.sizes.options(self.image_processor, self.pixels, self._is_canvas)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that decide what the network sees of a pair, ready for JSON."""
        return {name: getattr(self, name) for name in SETTINGS}

    def with_settings(self, **changes: Any) -> "ChatPairProcessor":
        """Return a processor with some settings changed.

        Raises: ValueError for an unknown name or an impossible value.
        """
        settings = changed_settings(self.settings, changes)
        return type(self)(self.processor, self.base, self.sizes, self.two_frames, **settings)

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
            captions: one per pair; the labels are -100 on everything but the answer and its end.
            text: question for this call, instead of the one in the settings; one for all pairs or one per pair.

        Returns: everything that the family's own processor returns, padded on the left for generation and on the right
            for training.

        Raises: ValueError for arguments that do not match; ImageError that names side and pair of an unreadable image.
        """
        befores, afters = as_pairs(before, after)
        questions = prompts_of(text, self.prompt, len(befores))
        names = [f"pair {index} (counted from 0)" for index in range(len(befores))]
        pairs = [self.load_pair(*each) for each in zip(befores, afters, names, strict=True)]
        for question in questions:
            self._tokens(question)  # which refuses special tokens
        chats = [self._question(pair, question) for pair, question in zip(pairs, questions, strict=True)]
        if captions is None:
            inputs = self._tensors(chats, "left", return_tensors, add_generation_prompt=True)
        else:
            answers = [self._answer(caption) for caption in as_texts(captions, len(pairs), "captions")]
            whole = [chat + [_turn("assistant", _text(answer))] for chat, answer in zip(chats, answers, strict=True)]
            inputs = self._tensors(whole, "right", return_tensors)
            scored = [self._answer_tokens(*both) for both in zip(chats, whole, strict=True)]
            inputs["labels"] = self._labels(inputs, scored)
        if self.layout == "two_frames":
            self._join_frames(inputs, [pair[1].picture for pair in pairs])
        return inputs

    def target_tokens(self, captions: list[str], text: str | list[str] | None = None) -> list[list[int]]:
        """Return what the model is to generate for each caption, with its end.

        Args:
            text: question for this call, instead of the one in the settings; one for all or one per caption.
        """
        found = []
        for question, caption in zip(prompts_of(text, self.prompt, len(captions)), captions, strict=True):
            chat = [_turn("user", _text(question or "?"))]
            whole = chat + [_turn("assistant", _text(self._answer(caption)))]
            found.append(self._scored(self._answer_tokens(chat, whole)))
        return found

    def load_pair(self, before: Any, after: Any, name: str) -> tuple[Cell, Cell]:
        """Return both images of a pair at the size that the network sees, to be given to this processor as images.

        Photographs loaded like this need little memory while they wait for their batch.

        Args:
            before, after: images as `load_image` takes them.
            name: what errors call the pair.

        Raises: ImageError that names pair and side of an unreadable image.
        """
        first = self._load(before, None, f"before image of {name}")
        if is_same_file(before, after):
            return first, first
        same = None if self.layout == "two_images" else first.size
        return first, self._load(after, same, f"after image of {name}")

    def sees_both_images(self) -> bool:
        """Return whether both images of a pair reach the model; False if it takes one image only."""
        if self.layout != "two_images":
            return True
        side = math.isqrt(self.pixels)
        black, white = (Image.new("RGB", (side, side), color) for color in ("black", "white"))
        turn = self._question(self.load_pair(black, white, "the check"), self.prompt)[0]
        first_only = {**turn, "content": turn["content"][:1] + turn["content"][2:]}
        if self._chat_tokens([turn], True) == self._chat_tokens([first_only], True):
            return False
        try:
            same, other = self(black, black), self(black, white)
        except ValueError:  # images and their tokens in the text do not match
            return False
        return any(not torch.equal(same[name], other[name]) for name in same)

    @property
    def end_token_id(self) -> int:
        """Return the token that ends an answer."""
        chat = [_turn("user", _text(self.prompt or "?"))]
        return self._scored(self._answer_tokens(chat, chat + [_turn("assistant", _text("."))]))[-1]

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return the tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the settings and the tokenizer; the base has the rest, video part included."""
        self._save(Path(folder), {"processor_class": CLASS_NAME})

    def save_whole(self, folder: str | os.PathLike) -> None:
        """Also write the base's own files, video part included, for a model that has no other base."""
        name, revision = self.base
        for file in BASE_FILES:
            own = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
            if own is not None:
                (Path(folder) / file).write_bytes(Path(own).read_bytes())
        config = Path(folder) / PROCESSOR_NAME
        content = parse_json(config.read_bytes()) if config.is_file() else {}
        self._save(Path(folder), {"processor_class": type(self.processor).__name__, **content})

    def _save(self, folder: Path, content: dict[str, Any]) -> None:
        content = {**content, "settings": self.settings}
        (folder / PROCESSOR_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self.tokenizer.save_pretrained(str(folder))

    def _load(self, image: Any, size: Size | None, name: str) -> Cell:
        """Return an image at its own size, or at `size`, which is that of the first of the pair."""
        if isinstance(image, Cell):
            return image
        try:
            return load_cell(image, self._cell_size if size is None else size, scaled_decoding=self.scaled_decoding)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error

    def _cell_size(self, size: Size) -> Size:
        """Return the size at which transformers' processor gets an image of this size."""
        if self._is_canvas:
            return self.sizes.cell_size(self.image_processor, self.pixels, size, self.layout == "vertical")
        return fit(size, *self.limits)

    @property
    def _is_canvas(self) -> bool:
        return self.layout in ("vertical", "horizontal")

    def pictures(self, pair: tuple[Cell, Cell]) -> list[Image.Image]:
        """Return the pictures of a question about a pair, in their order.

        Args:
            pair: what `load_pair` returns.

        Raises: ValueError for the layout "two_frames": patches with two moments are no pictures.
        """
        if self.layout == "two_frames":
            raise ValueError("the layout 'two_frames' has no pictures: a server cannot get it, use another layout.")
        if not self._is_canvas:
            return [cell.picture for cell in pair]
        return [join(*pair, self.layout).picture]

    def _question(self, pair: tuple[Cell, Cell], question: str) -> list[dict[str, Any]]:
        # of two frames the first; `_join_frames` adds the second
        images = [pair[0].picture] if self.layout == "two_frames" else self.pictures(pair)
        return [_turn("user", *({"type": "image", "image": image} for image in images), _text(question))]

    def _tensors(self, chats: list[Any], side: str, return_tensors: str, **options: Any) -> BatchFeature:
        given = {"padding": True, "padding_side": side, "images_kwargs": self.image_options}
        made = self.processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors=return_tensors,
            processor_kwargs=given,
            **template_options(self.chat_template),
            **options,
        )
        return BatchFeature(dict(made))

    def _answer(self, caption: str) -> str:
        caption = caption.strip()
        tokens = self._tokens(caption)
        if len(tokens) < self.max_caption_length:
            return caption
        logger.warning_once(
            f"Captions longer than max_caption_length={self.max_caption_length} tokens (end included) are cut; "
            "raise this setting of the processor to keep them whole."
        )
        return self.tokenizer.decode(tokens[: self.max_caption_length - 1]).strip()

    def _tokens(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = self.special_ids.intersection(ids)
        if found:
            token = self.tokenizer.convert_ids_to_tokens(min(found))
            raise ValueError(f"{text!r} contains the special token {token!r}; remove it from the text.")
        return ids

    def _answer_tokens(self, chat: list[Any], whole: list[Any]) -> list[int]:
        """Return what follows the question in a whole chat, images not counted.

        Raises: ValueError if the chat does not begin with the question, as it is put in generation.
        """
        question, chat_tokens = self._chat_tokens(chat, True), self._chat_tokens(whole, False)
        if chat_tokens[: len(question)] != question:
            raise ValueError(
                "the chat template writes the question in another way when an answer follows: the labels would be "
                "shifted. This model cannot be trained."
            )
        return chat_tokens[len(question) :]

    def _chat_tokens(self, turns: list[Any], ask: bool) -> list[int]:
        text = self.processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=ask, **template_options(self.chat_template)
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _scored(self, answer: list[int]) -> list[int]:
        """Return an answer's tokens without a line break after the end of the turn, which is never generated."""
        while len(answer) > 1 and not self.tokenizer.decode(answer[-1:]).strip():
            answer = answer[:-1]
        return answer

    def _labels(self, inputs: Any, answers: list[list[int]]) -> torch.Tensor:
        """Return the ids of the answers and their ends at their places, -100 elsewhere; [B, T]."""
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        ends = inputs["attention_mask"].sum(dim=1).tolist()  # padding is on the right
        for row, (end, answer) in enumerate(zip(ends, answers, strict=True)):
            place = slice(end - len(answer), end)
            if inputs["input_ids"][row, place].tolist() != answer:
                raise ValueError("the processor of this model changes the answer: it cannot be trained.")
            scored = self._scored(answer)
            labels[row, place.start : place.start + len(scored)] = torch.tensor(scored)
        return labels

    def _join_frames(self, inputs: Any, afters: list[Image.Image]) -> None:
        """Put the images after into the second moment of each patch; until now both are the image before."""
        made = self.image_processor(images=afters, return_tensors="pt", **self.image_options)
        size, moments = self.image_processor.patch_size, self.image_processor.temporal_patch_size
        both = inputs["pixel_values"], made["pixel_values"]  # each [patches, 3 * moments * size * size]
        before, after = (values.view(len(values), 3, moments, size, size) for values in both)
        inputs["pixel_values"] = torch.stack((before[:, :, 0], after[:, :, 1]), dim=2).flatten(1)


def _turn(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def template_options(template: str | None) -> dict[str, bool]:
    """Return the options of a chat template that make the model answer without thinking before."""
    return {THINKING: False} if template and THINKING in template else {}


def saved_settings(file: Path) -> dict[str, Any] | None:
    """Return the settings in a processor_config.json; None if it has none, because we did not write it.

    Raises: ValueError if they are damaged.
    """
    content = parse_json(file.read_bytes())
    settings = content.get("settings")
    if settings is None and content.get("processor_class") != CLASS_NAME:
        return None
    if not isinstance(settings, dict):
        raise ValueError(f"{str(file)!r} contains no settings: it is damaged.")
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(f"{str(file)!r} contains the unknown setting {unknown[0]!r}: a newer version wrote it.")
    return settings
