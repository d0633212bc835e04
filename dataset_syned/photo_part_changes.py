"""Changes of a part of a photograph: copied, covered or written on."""

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageStat

from .photo_edit import PART, TEXT, Edit, deviation, part_edit, random_part
from .photo_scenes import COARSE, PAINTS, Box, Stage, free_box, luminance, place_of_box
from .scene_drawing import between, pick
from .thing_names import ThingName

WORDS = "hello sale open new welcome closed free stop music summer 2024 exit taxi".split()
INKS = ((250, 250, 250), (15, 15, 15), (250, 220, 40), (220, 30, 30), (40, 80, 220))
SHEETS = {"black": (12, 12, 12), "white": (245, 245, 245), "gray": (128, 128, 128), **PAINTS}


def soft_mask(size: tuple[int, int], box: Box, shape: str) -> Image.Image:
    """Return an ellipse or a rounded rectangle with soft edges."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    if shape == "ellipse":
        draw.ellipse(box, fill=255)
    else:
        draw.rounded_rectangle(box, radius=min(box[2] - box[0], box[3] - box[1]) // 5, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(max(size) / 85))


def duplicate_part(rng: random.Random, stage: Stage) -> Edit | None:
    """Copy a part of the picture to another place."""
    before = stage.draw()
    old = random_part(rng, stage.size, 0.22, 0.38)
    new = old and free_box(rng, stage.size, (old[2] - old[0], old[3] - old[1]), [old])
    if not new:
        return None
    copy = ImageChops.offset(before, new[0] - old[0], new[1] - old[1])
    mask = soft_mask(stage.size, new, "rectangle")
    edit = part_edit(
        before,
        Image.composite(copy, before, mask),
        mask,
        visible=45.0,
        change_type="duplicate",
        action="duplicate part",
        thing=PART,
        source=place_of_box(old, stage.size),
    )
    distinct = deviation(before.crop(old).reduce(max(1, max(stage.size) // COARSE))) > 28  # seen from far
    return edit if edit and distinct and edit.change.place != edit.change.source else None


def cover(rng: random.Random, stage: Stage) -> Edit | None:
    """Hide a part behind a plain shape."""
    before, box = stage.draw(), random_part(rng, stage.size, 0.2, 0.42)
    if box is None:
        return None
    color = pick(rng, list(SHEETS))
    shape = pick(rng, ("rectangle", "rectangle", "circle"))
    mask = Image.new("L", stage.size)
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        radius = (box[2] - box[0] + box[3] - box[1]) / 4
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        draw.rectangle(box, fill=255)
    after = before.copy()
    after.paste(SHEETS[color], (0, 0), mask)
    return part_edit(
        before,
        after,
        mask,
        visible=45.0,
        change_type="cover",
        action="cover",
        thing=ThingName(shape),
        color=color,
    )


def text(rng: random.Random, stage: Stage) -> Edit | None:
    """Write a word on the picture, or remove it."""
    before, word = stage.draw(), pick(rng, WORDS)
    word = word.upper() if rng.random() < 0.5 else word
    font = ImageFont.load_default(between(rng, 0.13, 0.24) * min(stage.size))
    left, top, right, bottom = font.getbbox(word)
    if right - left > 0.8 * stage.size[0]:
        return None
    box = free_box(rng, stage.size, (right - left, bottom - top))
    if box is None:
        return None
    mask = Image.new("L", stage.size)
    ImageDraw.Draw(mask).text(
        (box[0] - left, box[1] - top), word, 255, font, stroke_width=round(max(stage.size) / 250)
    )
    paper = luminance(ImageStat.Stat(before.crop(box)).mean)
    inks = [ink for ink in INKS if abs(luminance(ink) - paper) > 75]
    if not inks:
        return None
    after = before.copy()
    after.paste(pick(rng, inks), (0, 0), mask)
    edit = part_edit(
        before,
        after,
        mask,
        visible=60.0,
        change_type="text",
        action="add text",
        thing=TEXT,
        parameters={"text": word},
    )
    return edit.swapped("remove text") if edit and rng.random() < 0.35 else edit


def with_part(rng: random.Random, stage: Stage, whole: Edit | None, shape: str) -> Edit | None:
    """Return the same edit of a part only."""
    box = random_part(rng, stage.size, 0.3, 0.5)
    if whole is None or box is None:
        return None
    if shape == "rectangle":
        mask = Image.new("L", stage.size)
        mask.paste(255, box)
    else:
        mask = soft_mask(stage.size, box, pick(rng, ("ellipse", "rounded rectangle")))
    change = whole.change
    edit = part_edit(
        whole.before,
        Image.composite(whole.after, whole.before, mask),
        mask,
        visible=9.0,
        change_type=change.change_type,
        action=f"{change.action} part",
        thing=PART,
        parameters=change.parameters,
    )
    return edit if edit and deviation(whole.before.crop(box)) > 20 else None
