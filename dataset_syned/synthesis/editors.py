"""The contract of editors: a task and its candidates in, edited images out."""

from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Task:
    """A pair to edit."""

    pair_id: str
    image: Image.Image
    instruction: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Seed and guidance of one candidate."""

    seed: int
    guidance: tuple[tuple[str, float], ...] = ()  # argument of the pipeline and its value


Edited = Image.Image | str  # or why there is no image


class Editor(Protocol):
    """An editor of images. Its constructor takes the config and raises SettingsError for what it cannot do.

    Attributes:
        description: provenance of every candidate: editor, model, revision, settings, versions.
        guidances: (argument, value) choices that the candidates combine in turn, a list per argument.
    """

    description: dict[str, Any]
    guidances: list[list[tuple[str, float]]]

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height at which an image of `size` is edited."""

    def edit(self, tasks: list[Task], candidates: list[list[Candidate]]) -> list[list[Edited]]:
        """Return one result per candidate of each task; the images of one call have one working size."""
