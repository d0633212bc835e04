"""Configuration of BLIP2IDC: BLIP-2's under its own model type, with the classes of the remote code."""

import os
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Blip2Config

# One class under three names; `AutoModel` too must return the class that generates.
AUTO_MAP = {
    "AutoConfig": "configuration_blip2idc.Blip2IdcConfig",
    "AutoModel": "modeling_blip2idc.Blip2IdcForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_blip2idc.Blip2IdcForConditionalGeneration",
}
PIPELINES = {
    "image-difference-captioning": {
        "impl": "pipeline_blip2idc.ImageDifferenceCaptioningPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}


@strict
class Blip2IdcConfig(Blip2Config):
    """BLIP-2's configuration; what the network sees (layout, canvas, prompt) is saved with the processor."""

    model_type = "blip2idc"
    _auto_class = "AutoConfig"

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        if self.image_token_index is None:
            # BLIP-2 OPT checkpoints older than the `<image>` token; adding it to OPT's tokenizer gives this id.
            self.image_token_index = 50265
        self.auto_map = dict(AUTO_MAP)
        self.custom_pipelines = {task: dict(entry) for task, entry in PIPELINES.items()}

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a plain BLIP-2 config as one of this class, without transformers' warning about mixed model types."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") == "blip-2":
            config_dict["model_type"] = cls.model_type
        return config_dict, kwargs
