"""Does a tokenizer belong to a model, and does it know the words of the captions?"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

LEAST_SHARE = 0.9  # of a model's vocabulary; 0.1 % of the rows of real ones have no token
WORD = re.compile(r"[^\W\d_]+")


def check_tokenizer(tokenizer: Any, name: str, rows: int, special: dict[str, int | list[int] | None]) -> None:
    """Raise ValueError for a tokenizer that does not fit a model.

    Args:
        name: folder or Hub id of the tokenizer, for the error.
        rows: size of the model's vocabulary, i.e. of its input embeddings.
        special: what the model expects as "bos", "eos", "pad" and "image": an id, several, or None for anything.
    """
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    if not tokenizer.decode(ids, skip_special_tokens=True).strip():
        raise ValueError(f"the tokenizer in {name!r} gives nothing for 'a': its files are missing or damaged.")
    size = len(tokenizer)
    if size > rows + 1 or size < LEAST_SHARE * rows:  # one more: the image token is added to older models
        raise ValueError(f"the tokenizer in {name!r} has {size} tokens, but the model {rows}: it is another model's.")
    for token, wanted in special.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        found = (
            tokenizer.convert_tokens_to_ids("<image>") if token == "image" else getattr(tokenizer, f"{token}_token_id")
        )
        differs = found is not None and None not in allowed and found not in allowed
        # the model writes its padding after the end, where it must not be read as a word
        is_word = token == "pad" and tokenizer.decode([i for i in allowed if i is not None], skip_special_tokens=True)
        if differs or is_word:
            raise ValueError(
                f"the tokenizer in {name!r} has the {token} token {found}, but the model "
                f"{' or '.join(map(str, allowed))}: it is another model's."
            )


def vocabulary(tokenizer: Any) -> dict[str, int]:
    """Return tokens and their ids, without those that were added, of which older files have fewer."""
    added = tokenizer.added_tokens_decoder
    return {token: index for token, index in tokenizer.get_vocab().items() if index not in added}


def words_in_pieces(tokenizer: Any, captions: Iterable[str]) -> tuple[int, int, list[str]]:
    """Return how many different words of captions the tokenizer spells in pieces, of how many, and examples.

    A word counts as spelled in pieces if it takes at least 3 tokens, and at least half as many tokens as it has
    letters, both at the beginning of a sentence and inside it. A model that has never written these pieces one after
    the other rarely learns to.

    Returns: the examples are the most frequent ones, at most 5.
    """
    words = Counter(word for caption in captions for word in WORD.findall(caption))
    pieces = [word for word, _ in words.most_common() if _is_in_pieces(tokenizer, word)]
    return len(pieces), len(words), pieces[:5]


def _is_in_pieces(tokenizer: Any, word: str) -> bool:
    spellings = tokenizer([word, f" {word}"], add_special_tokens=False)["input_ids"]
    tokens = min(map(len, spellings))
    return tokens >= 3 and tokens >= len(word) / 2
