"""Changes of things on a photograph: cut-outs that are added, removed, replaced, moved, painted or copied."""

import random
from dataclasses import replace
from typing import Any

from PIL import Image, ImageStat

from .photo_edit import Change, Edit, clipped, share, thing_visible
from .photo_scenes import PAINTS, Placed, Stage, coarse_difference, place_of_box
from .scene_drawing import between, pick
from .thing_names import SOMETHING

LEAST_AREA = 0.012  # of the picture, of a changed thing


def placed_parameters(placed: Placed) -> dict[str, Any]:
    """Return how a cut-out was drawn, for `provenance`."""
    return {"longest": round(placed.longest, 1), "mirrored": placed.mirrored, "angle": round(placed.angle, 1)}


def thing_edit(
    stage: Stage, before: Image.Image, after: Image.Image, placed: Placed, change_type: str, **more: Any
) -> Edit | None:
    """Return the edit of a placed thing, or None if it is small or hardly differs from what it hides."""
    mask = stage.mask(placed)
    area = share(mask)
    if area < LEAST_AREA or not thing_visible(before, after, mask):
        return None
    box = clipped(stage.box(placed), stage.size)
    change = Change(
        change_type,
        more.pop("action", change_type),
        more.pop("thing", placed.cut_out.name),
        place_of_box(box, stage.size),
        box=box,
        area=area,
        parameters=placed_parameters(placed),
        **more,
    )
    return Edit(before, after, change, (placed.cut_out.file,))


def add(rng: random.Random, stage: Stage) -> Edit | None:
    """Add a thing."""
    placed = stage.place(rng)
    return placed and thing_edit(stage, stage.draw(), stage.draw(placed), placed, "add")


def remove(rng: random.Random, stage: Stage) -> Edit | None:
    """Remove a thing."""
    placed = stage.place(rng)
    return placed and thing_edit(stage, stage.draw(placed), stage.draw(), placed, "remove")


def replace_thing(rng: random.Random, stage: Stage) -> Edit | None:
    """Put another thing in the place of one."""
    old = stage.place(rng)
    if not old:
        return None
    cut_out = pick(rng, stage.material.cut_outs)
    if cut_out.name.head == old.cut_out.name.head or SOMETHING in (cut_out.name, old.cut_out.name):
        return None
    new = replace(old, cut_out=cut_out, mirrored=rng.random() < 0.5, angle=between(rng, -8, 8))
    edit = thing_edit(stage, stage.draw(old), stage.draw(new), old, "replace", other=cut_out.name)
    if edit is None or not thing_visible(edit.before, edit.after, stage.mask(new)):
        return None
    return replace(edit, cut_outs=(old.cut_out.file, cut_out.file))


def seen(stage: Stage, placed: Placed) -> bool:
    """Return whether a person sees a thing in front of the background."""
    return thing_visible(stage.draw(), stage.draw(placed), stage.mask(placed))


def second_place(rng: random.Random, stage: Stage, change_type: str, stays: bool) -> Edit | None:
    """Show a thing at another place, and at its first one too if it stays."""
    old = stage.place(rng)
    new = old and stage.elsewhere(rng, old, old)
    if not new:
        return None
    source = place_of_box(stage.box(old), stage.size)
    after = stage.draw(old, new) if stays else stage.draw(new)
    edit = thing_edit(stage, stage.draw(old), after, new, change_type, source=source)
    return edit if edit and seen(stage, old) and source != edit.change.place else None


def move(rng: random.Random, stage: Stage) -> Edit | None:
    """Move a thing to another place."""
    return second_place(rng, stage, "move", stays=False)


def copy(rng: random.Random, stage: Stage) -> Edit | None:
    """Copy a thing to another place."""
    return second_place(rng, stage, "duplicate", stays=True)


def recolor(rng: random.Random, stage: Stage) -> Edit | None:
    """Paint a thing in another color."""
    old = stage.place(rng)
    if not old:
        return None
    color = pick(rng, list(PAINTS))
    new, sprite = replace(old, color=color), stage.sprite(old)
    mean = ImageStat.Stat(sprite.convert("RGB"), sprite.getchannel("A")).mean
    if max(abs(value - paint) for value, paint in zip(mean, PAINTS[color], strict=True)) < 70:
        return None
    edit = thing_edit(stage, stage.draw(old), stage.draw(new), old, "color", action="recolor", color=color)
    return edit if edit and coarse_difference(edit.before, edit.after, stage.mask(old)) >= 35 else None
