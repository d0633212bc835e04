"""A captioner as a plain model of transformers, which needs no code of ours, for servers such as vLLM.

Each function writes weights, processor and a page that says how to serve the model and how to ask it.
"""

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, GenerationConfig
from transformers.utils import CHAT_TEMPLATE_FILE, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME

from common_idc.atomic_files import write_json
from common_idc.strict_json import parse_json
from modeling_blip2idc import Blip2IdcForConditionalGeneration, Blip2IdcProcessor, image_fusion

from .chat_models import TOKEN_IDS
from .chat_pairs import ChatPairProcessor, template_options

SHARD_SIZE = "5GB"
FUSION = Path(image_fusion.__file__)  # travels with a plain BLIP-2, whose clients need it
# In the configuration of a plain model they would name code of ours.
NOT_PLAIN = ("model_type", "auto_map", "custom_pipelines", "architectures")
# BOS and the prompt, as Blip2IdcProcessor makes them; vLLM puts the image tokens before. Without this template, vLLM
# would write "Question: ... Answer:".
BLIP2_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)

ADDRESS = "http://127.0.0.1:8000/v1"
PAGE = """\
# {name}

A model that describes in one sentence what changed between two images: plain weights for transformers and servers.

"""
SERVE = """\
Serve it with vLLM, in this folder:

```bash
vllm serve . --served-model-name {name} --dtype bfloat16{options}
```

The package of BLIP2IDC asks a server about one pair or many (`--pairs list.csv`), several at a time:

```bash
blip2idc before.png after.png --server {address} --processor .
```

`--processor` names this folder, of which it reads everything but the weights: it says how the images are prepared.
Any other client:

```python
{snippet}
```
"""
NOT_SERVED = "vLLM does not serve BLIP-2 with an encoder-decoder language model such as T5.\n"
REQUEST = """\
import base64
import io
import json
{imports}
{pictures}
content = []
for picture in pictures:
    file = io.BytesIO()
    picture.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content.append({{"type": "image_url", "image_url": {{"url": url}}}})
{text}body = {{
    "model": {name},
    "messages": [{{"role": "user", "content": content}}],
    "max_tokens": {max_tokens},
    "temperature": 0,{template}
}}
headers = {{"Content-Type": "application/json"}}
request = urllib.request.Request("{address}/chat/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["choices"][0]["message"]["content"].strip())"""
TEXT = 'content.append({{"type": "text", "text": {prompt}}})\n'
TEMPLATE = '\n    "chat_template_kwargs": {options!r},'
# imports of the standard library, other lines that give `pictures`
FUSED = (
    "import urllib.request\n",
    """\
from image_fusion import fuse  # the file next to this page; it needs numpy, pillow and torch

how = {{"layout": "{layout}", "canvas": {canvas}, "blur": {blur}, "scaled_decoding": {scaled_decoding}}}
pictures = [fuse("before.png", "after.png", **how)]""",
)
TWO_IMAGES = (
    "import math\nimport urllib.request\n",
    """\
from PIL import Image, ImageOps


def load(file):
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    scale = min(1.0, math.sqrt({pixels} / (image.width * image.height)))
    size = [max({unit}, math.floor(side * scale / {unit}) * {unit}) for side in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)


pictures = [load("before.png"), load("after.png")]""",
)
ONE_CANVAS = (
    "import urllib.request\n",
    """\
from captioner_idc.loading import load_processor

processor = load_processor(".")
pictures = processor.pictures(processor.load_pair("before.png", "after.png", "the pair"))""",
)
BLIP2_USE = """
Without a server, with transformers:

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

from image_fusion import fuse

model, processor = AutoModelForImageTextToText.from_pretrained("."), AutoProcessor.from_pretrained(".")
how = {{"layout": "{layout}", "canvas": {canvas}, "blur": {blur}, "scaled_decoding": {scaled_decoding}}}
picture = fuse("before.png", "after.png", **how)
inputs = processor(images=picture, text={prompt}, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens={max_caption_length}, eos_token_id={ends})
{new_tokens}print(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())
```
"""
# A decoder-only language model repeats its input.
ONLY_NEW_TOKENS = 'tokens = tokens[:, inputs["input_ids"].shape[1] :]  # without the input, which this model repeats\n'


def save_plain_blip2(model: Blip2IdcForConditionalGeneration, processor: Blip2IdcProcessor, folder: Path) -> None:
    """Write a BLIP-2 of transformers with the same logits, its processor, and how clients fuse two images.

    Args:
        model: its position embeddings are interpolated to the size of the canvas once, in place.

    Raises: ValueError for a canvas that is not a square, for which a plain BLIP-2 has no position embeddings.
    """
    height, width = processor.canvas
    if height != width:
        raise ValueError(
            f"the canvas {[height, width]} is not square, and plain BLIP-2 has position embeddings for square images "
            "only: train with a square canvas, or export with --format remote-code."
        )
    _fit_positions(model, height)
    _save_as_plain(model, folder)
    plain = Blip2Processor(processor.image_processor, processor.tokenizer, processor.num_query_tokens)
    plain.save_pretrained(folder)
    if processor.decoder_only:
        (folder / CHAT_TEMPLATE_FILE).write_text(BLIP2_TEMPLATE, encoding="utf-8")
    saved = parse_json((folder / PROCESSOR_NAME).read_bytes())
    saved["image_processor"] |= {"size": {"height": height, "width": width}, "do_resize": True}
    saved["image_processor"].pop("auto_map", None)
    write_json(folder / PROCESSOR_NAME, {**saved, **processor.settings})
    (folder / FUSION.name).write_bytes(FUSION.read_bytes())
    _write_blip2_page(model, processor, folder)


def _fit_positions(model: Blip2IdcForConditionalGeneration, size: int) -> None:
    """Interpolate the position embeddings to square images of `size` pixels, as the model itself does at each call."""
    if not model.must_interpolate(size, size):
        return
    embeddings, config = model.vision_model.embeddings, model.config.vision_config
    patches = (size // config.patch_size) ** 2
    positions = embeddings.position_embedding
    with torch.no_grad():
        shape = positions.new_empty(1, patches + 1, positions.shape[2])  # [1, 1 + patches, D]
        fitted = embeddings.interpolate_pos_encoding(shape, size, size)
    embeddings.position_embedding = torch.nn.Parameter(fitted.contiguous(), requires_grad=False)
    config.image_size = size


def _save_as_plain(model: Blip2IdcForConditionalGeneration, folder: Path) -> None:
    """Write the weights, whose names are those of BLIP-2, with the configuration of transformers' own class."""
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    for code in folder.glob("*.py"):
        code.unlink()
    settings = {name: value for name, value in model.config.to_dict().items() if name not in NOT_PLAIN}
    config = Blip2Config(**settings, architectures=[Blip2ForConditionalGeneration.__name__])
    config.save_pretrained(folder)
    ids = {name: getattr(config.text_config, name, None) for name in (*TOKEN_IDS, "decoder_start_token_id")}
    GenerationConfig(**{**ids, "eos_token_id": model.end_token_ids()}).save_pretrained(folder)


def _write_blip2_page(model: Blip2IdcForConditionalGeneration, processor: Blip2IdcProcessor, folder: Path) -> None:
    settings = {**processor.settings, "canvas": tuple(processor.canvas), "prompt": _quoted(processor.prompt)}
    ends = sorted({processor.tokenizer.eos_token_id, *model.end_token_ids()})
    use = BLIP2_USE.format(**settings, ends=ends, new_tokens=ONLY_NEW_TOKENS if processor.decoder_only else "")
    imports, pictures = FUSED
    served = (
        _serving(processor, folder, imports, pictures.format(**settings)) if processor.decoder_only else NOT_SERVED
    )
    (folder / "README.md").write_text(PAGE.format(name=folder.name) + served + use, encoding="utf-8")


def save_plain_chat(model: Any, processor: ChatPairProcessor, folder: Path) -> None:
    """Write a chat model and its processor, which then prepares images as ours does.

    Raises: ValueError for the layout "two_frames", which no server can get.
    """
    examples = processor.pictures(processor.load_pair(*_blank_pair(), "the example"))
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    processor.save_whole(folder)
    _save_image_options(_options_for_files(processor), folder)
    options = f" \\\n  --limit-mm-per-prompt '{json.dumps({'image': len(examples)})}'"
    if processor.image_options:  # again, because some processors prefer options of a call to those in the file
        options += f" \\\n  --mm-processor-kwargs '{json.dumps(processor.image_options)}'"
    pixels, unit = processor.limits
    imports, pictures = TWO_IMAGES if len(examples) == 2 else ONE_CANVAS
    served = _serving(processor, folder, imports, pictures.format(pixels=pixels, unit=unit), options)
    (folder / "README.md").write_text(PAGE.format(name=folder.name) + served, encoding="utf-8")


def _blank_pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(32, 32, 3, dtype=torch.uint8), torch.zeros(32, 32, 3, dtype=torch.uint8)


def _options_for_files(processor: ChatPairProcessor) -> dict[str, Any]:
    """Return the image options with the least size of one image: for a canvas, it is doubled when they are read."""
    options, name = dict(processor.image_options), "shortest_edge"
    if name in options.get("size", {}):
        single = processor.sizes.options(processor.image_processor, processor.pixels, False)
        options["size"] = {**options["size"], name: single["size"][name]}
    return options


def _save_image_options(options: dict[str, Any], folder: Path) -> None:
    """Write what our settings change in transformers' image processor into its files."""
    for name, part in ((PROCESSOR_NAME, "image_processor"), (IMAGE_PROCESSOR_NAME, None)):
        file = folder / name
        content = parse_json(file.read_bytes()) if file.is_file() else {}
        settings = content.get(part) if part else content
        if settings:
            settings |= options
            write_json(file, content)


def _serving(processor: Any, folder: Path, imports: str, pictures: str, options: str = "") -> str:
    """Return the part of a page about servers.

    Args:
        folder: its name is that of the model there; while it is written, it has its later name already.
        imports, pictures: the part of the snippet that gives the pictures of a pair.
        options: of `vllm serve`.
    """
    prompt, template = processor.settings["prompt"], template_options(processor.chat_template)
    snippet = REQUEST.format(
        imports=imports,
        pictures=pictures,
        text=TEXT.format(prompt=_quoted(prompt)) if prompt else "",
        name=_quoted(folder.name),
        max_tokens=processor.settings["max_caption_length"],
        template=TEMPLATE.format(options=template) if template else "",
        address=ADDRESS,
    )
    return SERVE.format(name=shlex.quote(folder.name), options=options, address=ADDRESS, snippet=snippet)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON's escapes are Python's, except those beyond 16 bits
