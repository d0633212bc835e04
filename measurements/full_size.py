"""Models of full size with random weights: their time and memory, where the real checkpoints cannot be had.

    python measurements/full_size.py /somewhere/full-size      # writes BLIP-2 OPT-2.7B
    python measurements/full_size.py --gpu                     # speed of BLIP-2 OPT-2.7B and Qwen3-VL-2B
    python measurements/full_size.py --gpu --small             # the same with small shapes, on any machine

The first writes 7.5 GB (bfloat16, in shards, a fraction of that in memory) outside the repository, and prints what can
be done with it. The second compares training and generation with the plain loops in one process (full_size_speed.py).
What such a model says is noise; its tokenizer knows the toy benchmark's words as single tokens, as OPT's does.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from bench import machine
from huggingface_hub import split_torch_state_dict_into_shards
from paired import described
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    Blip2Config,
    Blip2Processor,
    GenerationConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from common_idc.atomic_files import write_json
from common_idc.commands import run_command
from dataset_syned.benchmarks.toy import ToyConfig, draw_any_pair, draw_captions

ROOT = Path(__file__).resolve().parents[1]
BOS, PAD, EOS, NEWLINE = 2, 1, 2, 50118  # OPT's ids; BLIP-2 ends its texts with the newline
WORDS = 50265  # of OPT's tokenizer, so that `<image>`, which BLIP-2 adds, gets the same id
SPREAD = 0.02  # standard deviation of BLIP-2's and OPT's initialisers: activations stay finite in bfloat16


def full_size_config() -> Blip2Config:
    """Return the config of Salesforce/blip2-opt-2.7b; vision part and Q-Former have the library's default sizes."""
    text_config = OPTConfig(
        hidden_size=2560,
        word_embed_proj_dim=2560,
        ffn_dim=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=50304,
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=NEWLINE,
    )
    return Blip2Config(
        vision_config={}, qformer_config={}, text_config=text_config, num_query_tokens=32, image_token_index=WORDS
    )


def qwen3_vl_config() -> Qwen3VLConfig:
    """Return the config of Qwen/Qwen3-VL-2B-Instruct."""
    text = {
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
        **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 5_000_000},
            **{"mrope_section": [24, 20, 20], "mrope_interleaved": True},
        },
    }
    vision = {
        **{"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048},
        **{"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304},
        "deepstack_visual_indexes": [5, 11, 17],
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def make_checkpoint(folder: Path, config: Any, shard_size: int = 10**9, processor: Any = None) -> int:
    """Write the folder as the Hub would deliver it and return the number of parameters.

    Args:
        config: of a BLIP-2, or of another model with its `processor`.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        config.architectures, config.dtype = [model_class.__name__], "bfloat16"
        config.save_pretrained(unfinished)
        text, processor = config.get_text_config(), processor or make_processor(config)
        ids = {name: getattr(text, name) for name in ("bos_token_id", "pad_token_id", "eos_token_id")}
        GenerationConfig(**ids).save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        parameters = write_weights(unfinished, model_class, config, shard_size)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return parameters


def write_weights(folder: Path, model_class: type, config: Any, shard_size: int) -> int:
    """Write the weights shard by shard, so that only one is in memory."""
    with torch.device("meta"):
        model = model_class(config).to(torch.bfloat16)
    shapes = dict(model.named_parameters())  # each once: the head of the language model is its embedding
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=shard_size)
    generator = torch.Generator().manual_seed(0)
    for file, names in plan.filename_to_tensors.items():
        tensors = {name: draw(name, shapes[name].shape, generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sum(shape.numel() for shape in shapes.values())


def draw(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:  # of normalisations and biases
        return torch.full(shape, 1.0 if name.endswith(".weight") else 0.0, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, SPREAD, generator=generator)


def make_processor(config: Blip2Config) -> Blip2Processor:
    size = config.vision_config.image_size
    image_processor = BlipImageProcessorPil(size={"height": size, "width": size})
    return Blip2Processor(image_processor, make_tokenizer(), num_query_tokens=config.num_query_tokens)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of the toy benchmark's words, filled up to the size of OPT's vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(toy_sentences(2000), trainer)
    learnt = json.loads(tokenizer.to_str())
    words = learnt["model"]["vocab"]
    learnt["model"]["vocab"] = words | {f"<unused-{number}>": number for number in range(len(words), WORDS)}
    tokenizer = Tokenizer.from_str(json.dumps(learnt))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def toy_sentences(pairs: int) -> list[str]:
    rng, config = random.Random(0), ToyConfig()
    sentences = []
    for _ in range(pairs):
        pair = draw_any_pair(config, rng)
        sentences += draw_captions(rng, pair, config.wording)
    return sentences


def check_place(folder: Path) -> None:
    if folder.is_relative_to(ROOT):
        raise ValueError(f"{str(folder)!r} is inside the repository: name a folder outside {str(ROOT)!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(folder)!r} is there already: name a new folder, or remove it")
    existing = next(parent for parent in folder.parents if parent.is_dir())
    free = shutil.disk_usage(existing).free / 1e9
    if free < 8:
        raise ValueError(f"{str(existing)!r} has {free:.1f} GB left, 8 are needed: name a folder on another disk")


def next_commands(folder: Path) -> str:
    place, options = shlex.quote(str(folder)), '\'{"train": 4, "validation": 2, "test": 2}\''
    return f"""two steps of training on four drawn pairs, and a sentence of the adapter:
  python train.py --model {place} --benchmark toy --benchmark_options {options} \\
    --output_dir runs/full-size --lora_rank 16 --batch_size 2 --epochs 1 --validation_captions 0 --log_every 1
  blip2idc docs/before.jpg docs/after.jpg --adapter runs/full-size --max_new_tokens 10
a sentence of the model itself:
  blip2idc docs/before.jpg docs/after.jpg --model {place} --max_new_tokens 10"""


def write_checkpoint(folder: Path) -> None:
    """Write BLIP-2 OPT-2.7B into a new folder, and print what can be done with it."""
    check_place(folder)
    parameters = make_checkpoint(folder, full_size_config())
    gigabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    print(f"{folder}: {parameters:,} parameters, {gigabytes:.2f} GB\n{next_commands(folder)}")


def print_speed(small: bool, output: Path | None) -> None:
    """Measure training and generation of both models, print the rows, and write them into a file."""
    from full_size_speed import measure  # which imports this file for its configs

    rows = measure(small)
    print(*map(described, rows), sep="\n")
    if output:
        write_json(output, {**machine(), "small": small, "rows": rows})


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder outside the repository, for 7.5 GB")
    parser.add_argument("--gpu", action="store_true", help="measure speed instead of writing a folder (10 minutes)")
    parser.add_argument("--small", action="store_true", help="with --gpu: small shapes, also without a GPU")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="with --gpu: write the rows here as well")
    arguments = parser.parse_args(argv)
    if arguments.gpu == bool(arguments.folder):
        parser.error("give either a folder or --gpu")
    if arguments.gpu:
        return run_command(lambda: print_speed(arguments.small, arguments.output), ValueError, OSError)
    return run_command(lambda: write_checkpoint(arguments.folder.resolve()), ValueError, OSError)


if __name__ == "__main__":
    sys.exit(main())
