"""Predictions that an interrupted evaluation left, so that the next call continues where it stopped."""

import json
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_text


class PartialPredictions:
    """Predictions of one process so far, in FOLDER/.partial-NAME-PROCESS.jsonl.

    The first line is the settings fingerprint, then follows a line per batch. A file with another fingerprint is from
    another model, data set or setting, and is not used.
    """

    def __init__(self, folder: Path, name: str, process: int, fingerprint: dict[str, Any]):
        self.folder, self.name = folder, name
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.path = folder / f".partial-{name}-{process}.jsonl"
        self.usable: set[Path] = set()  # files with this fingerprint

    def read(self) -> dict[int, list[str]]:
        """Return sentences by batch, of all processes of this and earlier calls."""
        batches: dict[int, list[str]] = {}
        for path in sorted(self.folder.glob(f".partial-{self.name}-*.jsonl")):
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line end is incomplete
            try:
                first, *entries = map(json.loads, lines)
            except ValueError:  # corrupted file: predict these batches again
                continue
            if first == self.fingerprint:
                self.usable.add(path)
                batches |= {entry["batch"]: entry["sentences"] for entry in entries}
        return batches

    def start(self) -> None:
        """Start this process's file: keep complete lines, discard another fingerprint's."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        if self.path not in self.usable:
            lines = [json.dumps(self.fingerprint)]
        write_text(self.path, "\n".join(lines) + "\n")

    def add(self, batch: int, sentences: list[str]) -> None:
        """Append the sentences of a batch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"batch": batch, "sentences": sentences}) + "\n")


def remove_partial_predictions(folder: Path) -> None:
    """Remove the files of all processes, once the predictions are in their final files."""
    for path in folder.glob(".partial-*"):
        path.unlink()
