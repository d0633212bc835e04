"""pipeline("image-difference-captioning"): what it takes, in batches, without this package, and what it saves."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny, tiny_model, tiny_plain_processor, tiny_processor
from transformers import pipeline
from without_package import ALONE

from captioner_idc.captioning import caption
from captioner_idc.loading import SHIPPED, load
from modeling_blip2idc import ImageError

TASK = "image-difference-captioning"


def image(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    return Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


def pairs_of(count: int) -> list[dict[str, Image.Image]]:
    return [{"before": image(index), "after": image(index + 1)} for index in range(count)]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline(TASK, model=tiny_model(), processor=tiny_processor(max_caption_length=6), device="cpu")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Return what `caption` says about the pairs."""
    pairs = [(pair["before"], pair["after"]) for pair in pairs_of(5)]
    return caption(tiny_model(), tiny_processor(max_caption_length=6), pairs)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_lists_generators_and_data_sets_in_batches(pipe: Any, sentences: list[str], batch_size: int) -> None:
    def generator() -> Iterator[dict]:
        yield from pairs_of(5)

    expected = [{"generated_text": sentence} for sentence in sentences]
    assert len(set(sentences)) > 1
    assert pipe(pairs_of(5), batch_size=batch_size) == expected
    assert list(pipe(generator(), batch_size=batch_size)) == expected
    rows = datasets.Dataset.from_list(pairs_of(5)).cast_column("before", datasets.Image())
    assert list(pipe((row for row in rows), batch_size=batch_size)) == expected


def test_one_pair_in_every_form(pipe: Any, sentences: list[str], tmp_path: Path) -> None:
    [pair] = pairs_of(1)
    for name, picture in pair.items():
        picture.save(tmp_path / f"{name}.png")
    files = {name: str(tmp_path / f"{name}.png") for name in pair}
    handler = lambda *given: SimpleHTTPRequestHandler(*given, directory=str(tmp_path))  # noqa: E731
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        urls = {name: f"{address}/{name}.png" for name in pair}
        for given in (pair, files, urls, tuple(pair.values()), tuple(files.values())):
            assert pipe(given) == {"generated_text": sentences[0]}
    finally:
        server.shutdown()


def test_prompt_and_generation_settings_reach_the_model(pipe: Any) -> None:
    [pair] = pairs_of(1)
    short, prompted = pipe(pair, max_new_tokens=2), pipe(pair, text="Question: what changed?")
    assert len({pipe(pair)["generated_text"], short["generated_text"], prompted["generated_text"]}) == 3


def test_what_is_no_pair_is_quoted(pipe: Any, tmp_path: Path) -> None:
    [pair] = pairs_of(1)
    for given, message in (
        ({"before": pair["before"]}, r"got a mapping with \['before'\]"),
        ("a.png", "got str"),
        ((1, 2, 3), "got tuple"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(given)
    with pytest.raises(ImageError, match="after image of the pair: .*nowhere.png' does not exist"):
        pipe({"before": pair["before"], "after": str(tmp_path / "nowhere.png")})


def test_a_processor_that_cannot_fuse_is_refused() -> None:
    with pytest.raises(ValueError, match="the processor is Blip2Processor, not Blip2IdcProcessor"):
        pipeline(TASK, model=tiny_model(), processor=tiny_plain_processor(), device="cpu")


def test_the_captioner_that_ships() -> None:
    model, processor = load(SHIPPED, device="cpu")
    pair = {"before": image(0), "after": image(0)}
    [expected] = caption(model, processor, [tuple(pair.values())])
    assert pipeline(TASK, model=model, processor=processor, device="cpu")(pair) == {"generated_text": expected}


ANSWER = """
import json, sys
from transformers import pipeline

pipe = pipeline("image-difference-captioning", model=sys.argv[1], trust_remote_code=True, device="cpu")
pairs = [{"before": "a.png", "after": "b.png"}, ("b.png", "a.png"), ("a.png", "a.png")]
answers = [each["generated_text"] for each in pipe(pairs, batch_size=2)]
pipe.save_pretrained(sys.argv[2])
print(json.dumps([type(pipe).__module__.startswith("transformers_modules."), answers]))
"""


def answers_without_package(folder: Path, model: str, saved: str) -> list:
    """Return the answers of a process that has transformers but not this package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")}
    command = [sys.executable, "-I", "-c", ALONE + ANSWER, model, saved]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_travels_with_the_weights_and_its_save_keeps_the_processor(tmp_path: Path) -> None:
    first, second = image(0), image(1)
    first.save(tmp_path / "a.png")
    second.save(tmp_path / "b.png")
    folder = save_tiny(tmp_path / "model", layout="horizontal", max_caption_length=6)
    model, processor = load(folder, device="cpu")
    expected = [True, caption(model, processor, [(first, second), (second, first), (first, first)])]
    assert answers_without_package(tmp_path, "model", "again") == expected
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    assert answers_without_package(tmp_path, "again", "third") == expected
    assert json.loads((tmp_path / "third" / "processor_config.json").read_text())["layout"] == "horizontal"


def test_a_plain_blip2_is_refused_because_it_would_see_wrong_positions() -> None:
    model, processor = load(SHIPPED, device="cpu")
    with pytest.raises(ValueError, match="is a plain Blip2ForConditionalGeneration: load it with Blip2Idc"):
        pipeline(TASK, model=str(SHIPPED), trust_remote_code=True)
    [pair] = pairs_of(1)
    [sentence] = caption(model, processor, [(pair["before"], pair["after"])])
    assert pipeline(TASK, model=model, processor=processor)(pair) == {"generated_text": sentence}
