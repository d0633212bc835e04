"""BLIP2IDC: BLIP-2 adapted to image difference captioning. Exactly these files travel with the weights.

Importing this package registers the model with the Auto classes of this process; the saved files do not need it.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_blip2idc import Blip2IdcConfig
from .image_fusion import ImageError, fuse, load_image
from .modeling_blip2idc import Blip2IdcForConditionalGeneration
from .pipeline_blip2idc import TASK, ImageDifferenceCaptioningPipeline
from .processing_blip2idc import Blip2IdcProcessor

AutoConfig.register(Blip2IdcConfig.model_type, Blip2IdcConfig, exist_ok=True)
AutoModel.register(Blip2IdcConfig, Blip2IdcForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(Blip2IdcConfig, Blip2IdcForConditionalGeneration, exist_ok=True)
AutoProcessor.register(Blip2IdcConfig, Blip2IdcProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    TASK, ImageDifferenceCaptioningPipeline, AutoModelForImageTextToText, type="multimodal"
)

__all__ = [
    "Blip2IdcConfig",
    "Blip2IdcForConditionalGeneration",
    "Blip2IdcProcessor",
    "ImageDifferenceCaptioningPipeline",
    "ImageError",
    "fuse",
    "load_image",
]
