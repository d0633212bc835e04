"""Chat models that take several images: transformers' own classes and processors, made safe for training and captions.

The model refuses a batch whose images are missing, computes the loss of BLIP2IDC and generates greedily; its processor
works without torchvision, which the video parts of these families need.
"""

import copy
import functools
import inspect
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from modeling_blip2idc.modeling_blip2idc import caption_loss, labelled_targets

OLDEST = "5.21"  # in older versions of transformers, some processors need torchvision: Gemma 4's, in 5.17 all
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class ChatCaptioner:
    """The part that `captioner_class` puts before a class of transformers."""

    @property
    def caption_decoder(self) -> Any:
        """Return the module that reads what `encode_images` returns."""
        return self

    def encode_images(self, **inputs: Any) -> dict[str, Any]:
        """Return the arguments of `generate` and `forward` with the encoded images, for several calls.

        A model that cannot take these gets its arguments back, and encodes the images at each call.
        """
        check_images(self.config, **inputs)
        encode = getattr(self.base_model, "get_image_features", None)
        if encode is None or "mm_encoder_outputs" not in inspect.signature(self.forward).parameters:
            return inputs
        known = inspect.signature(encode).parameters
        features = encode(**{name: value for name, value in inputs.items() if name in known}, return_dict=True)
        rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
        return {**rest, "mm_encoder_outputs": {"image": features}}

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the new tokens only, [B, new]."""
        check_images(self.config, **kwargs)
        given = kwargs["input_ids"].shape[1]
        if "mm_encoder_outputs" in kwargs:  # beam search repeats the features in the object that it is given
            encoded = kwargs["mm_encoder_outputs"]
            kwargs["mm_encoder_outputs"] = {name: copy.copy(features) for name, features in encoded.items()}
        return super().generate(*args, **kwargs)[:, given:]


@functools.cache
def captioner_class(plain: type) -> type:
    """Return a class of transformers with our loss, checks and generation; its weights and files are the plain one's.

    Its `forward` takes `num_items_in_batch`: with `labels`, the loss is the sum over their tokens divided by it, or by
    the number of these tokens when None, and the logits are those of positions where some row has a label.
    """

    @functools.wraps(plain.forward)  # generate looks for the names of its inputs in the signature
    def forward(
        self: Any,
        *args: Any,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        check_images(self.config, **kwargs)
        if labels is None:
            return plain.forward(self, *args, **kwargs)
        targets, columns = labelled_targets(labels)
        outputs = plain.forward(self, *args, logits_to_keep=columns, **kwargs)
        outputs.loss = caption_loss(outputs.logits, targets, num_items_in_batch)
        return outputs

    # transformers looks into the module of a class, and writes its name into config.json.
    names = {"forward": forward, "__module__": plain.__module__, "plain": plain}
    return type(plain.__name__, (ChatCaptioner, plain), names)


def check_images(
    config: Any,
    input_ids: torch.LongTensor | None = None,
    pixel_values: torch.Tensor | None = None,
    mm_encoder_outputs: Any = None,  # where `generate` puts the images after encoding them
    **_: Any,
) -> None:
    """Raise ValueError for image tokens without images, which every family would silently ignore."""
    if input_ids is None or input_ids.shape[1] == 1 or pixel_values is not None:  # 1: a step of generation
        return
    if not mm_encoder_outputs and (input_ids == image_token_id(config)).any():
        raise ValueError(
            "the batch has image tokens, but no pixel_values: pass everything on that the processor returns."
        )


def image_token_id(config: Any) -> int:
    """Return the id of the token that images replace, which has two names in transformers."""
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(f"the configuration of {config.model_type!r} names no image token: it is not a chat model.")


def model_class(config: Any) -> type:
    """Return our class for a configuration. Raises: ValueError as `check_model_type` does."""
    return captioner_class(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])


def plain_class(model: Any) -> dict[str, str]:
    """Return the class of transformers by name and module, as PEFT writes it into adapter_config.json."""
    plain = next(each.plain for each in type(model).__mro__ if "plain" in vars(each))
    return {"base_model_class": plain.__name__, "parent_library": plain.__module__}


def decode_greedily(model: Any) -> None:
    """Make greedy decoding the default: some families' generation_config.json asks for sampling."""
    ids = {name: getattr(model.generation_config, name) for name in TOKEN_IDS}
    model.generation_config = GenerationConfig(do_sample=False, **ids)


def check_version() -> None:
    """Raise ValueError if transformers is too old for chat models."""
    if Version(transformers.__version__) < Version(OLDEST):
        raise ValueError(
            f"chat models need transformers {OLDEST} or newer, this is {transformers.__version__}: pip install -U "
            "transformers"
        )


def why_unusable(model_type: str) -> str | None:
    """Return why a type of model cannot take part, as far as its name tells; None if it may."""
    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or model_type not in PROCESSOR_MAPPING_NAMES:
        return "it is not a model of images and text"
    # a type that is not listed uses another's, which its repository names
    if "pil" not in IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {"pil": None}):
        return "its image processor needs torchvision, which this project does not use"
    # what transformers imports in place of a class that needs it
    if "torchvision" in getattr(processor_class(model_type), "_backends", ()):
        return "its processor needs torchvision, which this project does not use"
    return None


def processor_class(model_type: str) -> type:
    """Return the class of transformers for the processor of a type of model."""
    return getattr(transformers, PROCESSOR_MAPPING_NAMES[model_type])


class NotLoaded:
    """Stands for the video or audio part of a processor; the attributes are those that processors read."""

    num_frames = fps = slice_mode = use_image_id = downsample_mode = _auto_class = None
    merge_size = temporal_patch_size = 2
    model_input_names: tuple[str, ...] = ()


@functools.cache
def images_only(plain: type) -> type:
    """Return a processor class whose video and audio parts may be `NotLoaded`."""

    class ImagesOnly(plain):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, NotLoaded):
                return NotLoaded
            return super().check_argument_for_proper_class(argument_name, argument)

        def to_dict(self) -> dict[str, Any]:
            unsaved = {name for name, value in vars(self).items() if isinstance(value, NotLoaded)}
            return {name: value for name, value in super().to_dict().items() if name not in unsaved}

        def __reduce__(self) -> tuple[Any, ...]:  # loader processes may have to pickle it
            return _new, (plain,), vars(self)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = plain.__name__
    return ImagesOnly


def _new(plain: type) -> Any:
    cls = images_only(plain)
    return cls.__new__(cls)


def load_images_only(model_type: str, name: str, revision: str | None, tokenizer: Any = None) -> Any:
    """Return the processor of a model with its PIL image processor and without video.

    Args:
        tokenizer: instead of the model's own.
    """
    cls = images_only(processor_class(model_type))
    options = {"revision": revision, "trust_remote_code": False}
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(name, **options)
    parts = {
        "tokenizer": lambda: tokenizer,
        "image_processor": lambda: AutoImageProcessor.from_pretrained(name, backend="pil", **options),
    }
    arguments = [parts.get(part, NotLoaded)() for part in cls.get_attributes()]
    saved, _ = cls.get_processor_dict(name, revision=revision)
    saved = {name: value for name, value in saved.items() if name not in ("auto_map", "settings")}
    processor = cls.from_args_and_dict(arguments, saved)
    if processor.chat_template is None:
        processor.chat_template = tokenizer.chat_template
    return processor


def takes(image_processor: Any, option: str) -> bool:
    """Return whether an image processor knows an option."""
    return option in image_processor.valid_kwargs.__annotations__
