"""The pipeline of transformers: pairs of images in, sentences out.

pipe = pipeline("image-difference-captioning", model="gautierevn/blip2idc", trust_remote_code=True)
pipe({"before": "a.png", "after": "b.png"})   # {"generated_text": "the red ball is gone"}
pipe(pairs, batch_size=8)                     # a list, a generator or a data set of such pairs
"""

import os
from collections.abc import Mapping
from typing import Any

from transformers import Blip2ForConditionalGeneration, Pipeline
from transformers.image_utils import load_image

from .processing_blip2idc import Blip2IdcProcessor

TASK = "image-difference-captioning"


class ImageDifferenceCaptioningPipeline(Pipeline):
    """Pipeline that takes {"before": image, "after": image} or a tuple of two images: paths, URLs or PIL images.

    Keywords of a call: `text`, a prompt instead of the one in the processor's settings, and those of `generate`.

    Raises: ValueError for a plain BLIP-2, without the processor of the model, or for what is not a pair; ImageError
        that names the side of an unreadable image.
    """

    _load_processor = True
    _load_tokenizer = _load_image_processor = _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if type(self.model) is Blip2ForConditionalGeneration:  # it would silently see wrong positions on a canvas
            raise ValueError(
                f"{self.model.name_or_path!r} is a plain Blip2ForConditionalGeneration: load it with "
                "Blip2IdcForConditionalGeneration.from_pretrained, and pass model=... and processor=..."
            )
        if not isinstance(self.processor, Blip2IdcProcessor) and not hasattr(self.processor, "load_pair"):
            raise ValueError(
                f"the processor is {type(self.processor).__name__}, not Blip2IdcProcessor: "
                "save the processor next to the weights, or pass processor=..."
            )

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        return {}, options, {}

    def preprocess(self, pair: Any) -> dict[str, Any]:
        before, after = (_fetched(image) for image in _sides(pair))
        cells = self.processor.load_pair(before, after, "the pair")
        return dict(zip(("before", "after"), cells, strict=True))

    def _forward(self, pairs: dict[str, Any], text: str | None = None, **options: Any) -> dict[str, Any]:
        inputs = self.processor(before=pairs["before"], after=pairs["after"], text=text).to(self.device)
        options.setdefault("max_new_tokens", self.processor.settings["max_caption_length"])
        return {"tokens": self.model.generate(**inputs, **options)}

    def postprocess(self, outputs: dict[str, Any]) -> dict[str, str]:
        [text] = self.processor.batch_decode(outputs["tokens"], skip_special_tokens=True)
        return {"generated_text": " ".join(text.split())}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model and processor; transformers' own method would leave out how the images are fused."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _sides(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, Mapping) and {"before", "after"} <= pair.keys():
        return pair["before"], pair["after"]
    if isinstance(pair, (list, tuple)) and len(pair) == 2:
        return tuple(pair)
    found = f"a mapping with {sorted(pair)}" if isinstance(pair, Mapping) else f"{type(pair).__name__}"
    raise ValueError(f'a pair is {{"before": image, "after": image}} or a tuple of two images, got {found}.')


def _fetched(image: Any) -> Any:
    """Return an image, from the network if it is given by its URL."""
    is_url = isinstance(image, str) and image.startswith(("http://", "https://"))
    return load_image(image) if is_url else image
