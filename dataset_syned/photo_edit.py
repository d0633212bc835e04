"""An edit of a photograph: the pictures before and after, what changed, and whether a person can see it."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, ImageStat

from .photo_scenes import Box, coarse_difference, difference, free_box, place_of_box
from .scene_drawing import between, pick
from .thing_names import ThingName

PICTURE, PART, TEXT = ThingName("picture"), ThingName("part"), ThingName("text", mass=True)
# Mean differences, 0 to 255, from which on a person sees a change.
VISIBLE_THING = 26.0
VISIBLE_FROM_FAR = 20.0  # of a thing; on a background of its own texture, the difference of pixels is no sign
VISIBLE_PART = 22.0


@dataclass(frozen=True)
class Change:
    """What changed.

    Args:
        action: what was done, a key of the tables in `photo_wordings`.
        place: in words, or "" for a change of the whole picture.
        other: the thing that took the place of `thing`.
        source: where `thing` was before it moved, or was copied from.
        color: its new colour.
        box: pixels of the picture that shows the change.
        area: the changed share of the picture.
        parameters: what else the drawing depends on.
    """

    change_type: str
    action: str
    thing: ThingName = PICTURE
    place: str = ""
    other: ThingName | None = None
    source: str = ""
    color: str = ""
    box: Box | None = None
    area: float = 1.0
    parameters: dict[str, Any] = field(default_factory=dict)

    def unit(self) -> dict[str, str]:
        """Return the change as thing, action and place, with what else its sentence says."""
        other = self.other.text if self.other else ""
        more = {"other": other, "from": self.source, "color": self.color}
        fields = {"thing": self.thing.text, "action": self.action, "place": self.place}
        return {**fields, **{key: value for key, value in more.items() if value}}


@dataclass(frozen=True)
class Edit:
    """A pair of pictures and what differs."""

    before: Image.Image
    after: Image.Image
    change: Change
    cut_outs: tuple[str, ...] = ()  # files of the cut-outs that changed

    def swapped(self, action: str) -> "Edit":
        """Return the opposite change; its parameters are those by which the picture before was made."""
        parameters = {**self.change.parameters, "edited": "before"}
        change = replace(self.change, action=action, parameters=parameters)
        return replace(self, before=self.after, after=self.before, change=change)


def share(mask: Image.Image) -> float:
    """Return the white share of a mask."""
    return round(ImageStat.Stat(mask).mean[0] / 255, 4)


def thing_visible(before: Image.Image, after: Image.Image, mask: Image.Image) -> bool:
    """Return whether a person sees the difference of two pictures where a mask is white."""
    return (
        difference(before, after, mask) >= VISIBLE_THING and coarse_difference(before, after, mask) >= VISIBLE_FROM_FAR
    )


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """Return the part of a box that is in the picture."""
    return max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])


def part_edit(before: Image.Image, after: Image.Image, mask: Image.Image, **fields: Any) -> Edit | None:
    """Return the edit of a part, or None if a person could hardly see it."""
    box = mask.getbbox()
    if box is None or difference(before, after, mask) < fields.pop("visible", VISIBLE_PART):
        return None
    place = place_of_box(box, before.size)
    return Edit(before, after, Change(place=place, box=box, area=share(mask), **fields))


def random_part(rng: random.Random, size: tuple[int, int], low: float, high: float) -> Box | None:
    """Return a box whose sides are between two shares of the picture's."""
    return free_box(rng, size, (between(rng, low, high) * size[0], between(rng, low, high) * size[1]))


def deviation(picture: Image.Image) -> float:
    """Return the standard deviation of a picture's luminance."""
    return ImageStat.Stat(picture.convert("L")).stddev[0]


def whole_edit(
    before: Image.Image,
    after: Image.Image,
    visible: float,
    change_type: str,
    action: str,
    color: str = "",
    **parameters,
) -> Edit | None:
    """Return the edit of a whole picture, or None if a person could hardly see it."""
    if difference(before, after) < visible:
        return None
    rounded = {key: round(value, 2) if isinstance(value, float) else value for key, value in parameters.items()}
    return Edit(before, after, Change(change_type, action, color=color, parameters=rounded))


def either(rng: random.Random, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return a random number from one of two ranges."""
    return between(rng, *pick(rng, (low, high)))


def opposite(rng: random.Random, edit: Edit | None, action: str, probability: float) -> Edit | None:
    """Return the opposite change with a probability, so that the second picture is not always the edited one."""
    return edit.swapped(action) if rng.random() < probability and edit else edit
