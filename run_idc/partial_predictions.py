"""Predictions of an evaluation that has not finished, so that an interrupted one continues with the next batch.

FOLDER/.partial-NAME-PROCESS.jsonl: a first line with what the predictions depend on, then one line per batch. A file
with another first line was made by another model, data set or setting, and is not used.
"""

import json
from pathlib import Path
from typing import Any

from common_idc.atomic_files import write_text

PREFIX = ".partial-"


class PartialPredictions:
    """The results of all processes so far, and the file of this process."""

    def __init__(self, folder: Path, name: str, process: int, settings_fingerprint: dict[str, Any]):
        """Name the file of this process; nothing is read or written yet.

        Args:
            name: one per kind of result, e.g. "calibration".
            settings_fingerprint: everything that the predictions depend on, JSON-able.
        """
        self.folder, self.name = folder, name
        self.settings_fingerprint = json.loads(json.dumps(settings_fingerprint))
        self.path = folder / f"{PREFIX}{name}-{process}.jsonl"

    def read(self) -> dict[int, list[Any]]:
        """Return the results by batch, of all processes of this call and of earlier ones."""
        batches: dict[int, list[Any]] = {}
        for path in sorted(self.folder.glob(f"{PREFIX}{self.name}-*.jsonl")):
            entries = self._entries(path)
            batches |= {entry["batch"]: entry["results"] for entry in entries}
        return batches

    def begin(self) -> None:
        """Start this process's file: keep complete lines, discard those of another configuration."""
        entries = self._entries(self.path)
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in (self.settings_fingerprint, *entries)))

    def add(self, batch: int, results: list[Any]) -> None:
        """Append the results of one batch, JSON-able."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"batch": batch, "results": results}) + "\n")

    def _entries(self, path: Path) -> list[dict[str, Any]]:
        """Return the batches of a file; [] if it is missing, corrupted or of another configuration."""
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # after the last line end: an incomplete line
        try:
            first, *entries = map(json.loads, lines)
        except ValueError:  # corrupted file: predict these batches again
            return []
        return entries if first == self.settings_fingerprint else []


def remove_partial_predictions(folder: Path) -> None:
    """Remove the files of all processes, when the predictions are complete in files of their own."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink()
