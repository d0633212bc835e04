"""Train the adapter of a tiny model in four bits, in a process that finds bitsandbytes, and print the results.

bitsandbytes also runs on CPUs, slowly; only its fast way for them, which cannot be trained, is switched off.
"""

import json
import sys
from pathlib import Path

import torch
from bitsandbytes.nn import modules
from tiny_chat_models import save_chat

import train
from captioner_idc import families
from captioner_idc.adapters import save_adapter
from captioner_idc.loading import load
from run_idc.stopping import StopSignals

DATA = train.Options({"train": 8, "validation": 2, "test": 2})


def main(folder: Path) -> None:
    modules.has_avx512bf16 = lambda: False
    families.check_quantization = lambda device: None  # which asks for a GPU
    heads = {"num_attention_heads": 8, "num_heads": 8, "num_key_value_heads": 4}  # it works on blocks of 64 weights
    model = save_chat(folder / "model", "qwen3_vl", hidden_size=64, intermediate_size=64, **heads)
    config = train.TrainConfig(str(model), "toy", str(folder / "run"), benchmark_options=DATA, quantize="4bit")
    config.activation_checkpointing, config.mixed_precision, config.trackers = True, "no", []
    config.learning_rate, config.batch_size, config.validation_captions = 0.003, 4, 0
    run = train.prepare(train.Accelerator(cpu=True), config, StopSignals())
    train.check_images_matter(run)
    share = [next(iter(run.train))]
    found = {"losses": [train.train_step(run, share)[0] for _ in range(8)]}
    layers = [module for module in run.model.modules() if isinstance(module, modules.Linear4bit)]
    found |= {"layers": len(layers), "types": sorted({layer.weight.quant_type for layer in layers})}
    save_adapter(run.model, run.processor, folder / "adapter", str(model), None)
    whole, _ = load(folder / "adapter", device="cpu")
    batch, quantized = dict(share[0][0]), run.model.eval()
    with torch.no_grad():
        found |= {"whole": whole(**batch).loss.item(), "quantized": quantized(**batch).loss.item()}
        with whole.disable_adapter():
            found["without_adapter"] = whole(**batch).loss.item()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
