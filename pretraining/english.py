"""English to read: definitions of WordNet, and a tokenizer whose pieces all occur in what is read.

WordNet's files are those of Debian's package wordnet-base, in /usr/share/wordnet (its licence allows any use).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

FILES = ("data.noun", "data.adj", "data.verb", "data.adv")
SPECIAL = ["<s>", "<pad>", "</s>", "<image>"]
PLAIN = re.compile(r"[A-Za-z][A-Za-z ,'-]*")
LEAST_WORDS = 4


def definitions(folder: Path) -> list[str]:
    """Return the definitions and example sentences of WordNet in plain letters, in lower case."""
    found = []
    for file in FILES:
        for line in (folder / file).read_text(encoding="latin-1").splitlines():
            if line.startswith("  ") or "|" not in line:  # the licence
                continue
            parts = (part.strip().strip('"') for part in line.split("|", 1)[1].split(";"))
            found += [part.lower() for part in parts if PLAIN.fullmatch(part) and len(part.split()) >= LEAST_WORDS]
    return found


def nouns(folder: Path, most_letters: int = 12) -> list[str]:
    """Return the common nouns of one word."""
    words = set()
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        word = line.split(" ", 1)[0]
        if re.fullmatch(rf"[a-z]{{3,{most_letters}}}", word):
            words.add(word)
    return sorted(words)


def build_tokenizer(sentences: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE, which can spell any text, of pieces that are frequent in the sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=256,
    )
