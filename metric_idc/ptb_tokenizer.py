"""The caption tokenizer of COCO evaluation: Stanford's PTB tokenizer, lower-cased, punctuation dropped.

It is the Java program of pycocoevalcap, run in one JVM; there is no replacement in Python, because another tokenizer
gives other scores.
"""

import re

from .java import jar, run_java

NAME = "PTBTokenizer (Stanford CoreNLP 3.4.1), lower case, without pycocoevalcap's punctuation"

# What the Java lexer takes for the end of a line; each would shift all later sentences by one.
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\u2028\u2029]")


def tokenize(sentences: list[str]) -> list[str]:
    """Return the space-separated tokens of each sentence, in order; "" for an empty sentence."""
    if not sentences:
        return []
    folder = jar("tokenizer")  # before the import, for its error message
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    program = ["-cp", str(folder / STANFORD_CORENLP_3_4_1_JAR), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = [LINE_ENDS.sub(" ", sentence) for sentence in sentences]
    unique = list(dict.fromkeys(lines))
    dropped = frozenset(PUNCTUATIONS)
    output = run_java([*program, "-preserveLines", "-lowerCase"], unique)
    tokens = [" ".join(word for word in line.rstrip().split(" ") if word not in dropped) for line in output]
    tokens_of = dict(zip(unique, tokens, strict=True))
    return [tokens_of[line] for line in lines]
