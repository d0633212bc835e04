"""SPICE by the official jar of pycocoevalcap, if Stanford CoreNLP 3.6.0 is next to it; nothing is downloaded."""

import json
import tempfile
from pathlib import Path

import numpy as np

from .java import jar, run_jar

SCORES = ("SPICE",)
IMPLEMENTATION = "SPICE 1.0 jar of pycocoevalcap, mean F score over pairs"
FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def missing() -> str:
    """Return a sentence that names the missing files; "" if there are none."""
    folder = jar("spice", "lib")
    absent = [name for name in FILES if not (folder / name).is_file()]
    # without a path of this machine, because it goes into files of scores
    return f"SPICE needs {' and '.join(absent)} of Stanford CoreNLP 3.6.0 in pycocoevalcap/spice/lib" if absent else ""


def segment_statistics(systems: list[list[str]], references: list[list[str]]) -> list[np.ndarray]:
    """Return per system [pairs] the F score of each prediction's scene graph.

    Raises: FileNotFoundError if CoreNLP is missing.
    """
    if lack := missing():
        raise FileNotFoundError(
            f"{lack}; put them into {str(jar('spice', 'lib'))!r} by hand, or leave SPICE out of the metrics"
        )
    return [_f_scores(system, references) for system in systems]


def reduce(total: np.ndarray, pairs: int) -> dict[str, float]:
    """Return the mean over pairs."""
    return {"SPICE": float(total / pairs)}


def _f_scores(predictions: list[str], references: list[list[str]]) -> np.ndarray:
    items = [
        {"image_id": number, "test": prediction, "refs": texts}
        for number, (prediction, texts) in enumerate(zip(predictions, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        questions, answers = Path(folder, "in.json"), Path(folder, "out.json")
        questions.write_text(json.dumps(items), encoding="ascii")
        # the options of pycocoevalcap's Spice, without its cache, which it keeps in the installed package
        program = ["-Xmx8G", "-jar", str(jar("spice", "spice-1.0.jar")), str(questions)]
        done = run_jar([*program, "-out", str(answers), "-subset", "-silent"], cwd=jar("spice"))
        if done.returncode or not answers.is_file():
            raise RuntimeError(
                f"SPICE returned code {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-1000:]}"
            )
        results = json.loads(answers.read_text(encoding="utf-8"))
    scores = {result["image_id"]: float(result["scores"]["All"]["f"]) for result in results}
    return np.array([scores[number] for number in range(len(items))])
