"""Second stage: candidates for the after image, by the editor that the config names."""

import json
from itertools import product

from PIL import Image

from ..pairs import decode_image, png
from .diffusion_editor import PIPELINES, PipelineEditor
from .drawing_editor import SceneEditor
from .editors import Candidate, Edited, Editor, Task
from .settings import SynthesisConfig
from .shards import Row, seed_of

# editor -> its class
EDITORS: dict[str, type] = {"drawing": SceneEditor, **dict.fromkeys(PIPELINES, PipelineEditor)}


class Edits:
    """Stage whose rows have candidates, see `schemas.EDITS`. Edited images have the size of their source."""

    inputs, reads_images = ("sources", "instructions"), True

    def __init__(self, config: SynthesisConfig):
        self.batch_size = max(1, config.batch_size // config.candidates)
        self.config = config
        self.editor: Editor = EDITORS[config.editor](config)
        self.description = json.dumps(self.editor.description, sort_keys=True)

    def group(self, inputs: dict[str, Row]) -> tuple[int, int]:
        """Return the working size: images of one size go through the editor together."""
        return self.editor.working_size((inputs["sources"]["width"], inputs["sources"]["height"]))

    def work(self, batch: list[dict[str, Row]]) -> list[Row]:
        """Return the rows of a batch."""
        originals, tasks = [], []
        for inputs in batch:
            source, original = inputs["sources"], decode_image(inputs["sources"]["image"])
            size = self.editor.working_size(original.size)
            working = original if size == original.size else original.resize(size, Image.Resampling.LANCZOS)
            instruction, provenance = inputs["instructions"]["instruction"], json.loads(source["provenance"])
            originals.append(original)
            tasks.append(Task(source["pair_id"], working, instruction, provenance))
        candidates = [candidates_of(self.config, self.editor.guidances, task.pair_id) for task in tasks]
        edited = self.editor.edit(tasks, candidates)
        return [
            {
                "candidates": [candidate_row(*pair, original.size) for pair in zip(images, row, strict=True)],
                "editor": self.description,
                "problem": "",
            }
            for original, images, row in zip(originals, edited, candidates, strict=True)
        ]


def candidates_of(config: SynthesisConfig, guidances: list[list[tuple[str, float]]], pair_id: str) -> list[Candidate]:
    """Return seeds and guidances of a pair's candidates, which take the combinations of guidances in turn."""
    combinations = list(product(*guidances))  # one empty combination if nothing is asked for
    return [
        Candidate(seed_of(config.seed, pair_id, number), combinations[number % len(combinations)])
        for number in range(config.candidates)
    ]


def candidate_row(edited: Edited, candidate: Candidate, size: tuple[int, int]) -> Row:
    """Return the stored form of a candidate, at the size of its source."""
    made = json.dumps({"seed": candidate.seed, **dict(candidate.guidance)}, sort_keys=True)
    if isinstance(edited, str):
        return {"image": None, "made": made, "problem": edited}
    if edited.size != size:
        edited = edited.resize(size, Image.Resampling.LANCZOS)
    return {"image": {"bytes": png(edited.convert("RGB")), "path": None}, "made": made, "problem": ""}
