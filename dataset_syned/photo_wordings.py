"""Sentences about changes of photographs, as descriptions and as requests.

{a} is "a tiger", {the} "the tiger", {thing} "tiger", {has}, {is} and {was} are its verbs; {other} is "a horse", with
its verbs; {at} is "in the upper left", {target} and {the_spot} "the upper left"; {start} is where something was, "on
the right", {source} "the right"; {c} is a color, {C} "a blue", and {picture} one of several words for a picture.
"""

import random
from typing import Literal

from .photo_edit import Change
from .thing_names import ThingName, article

Style = Literal["description", "request"]
REFERENCES = 5
PICTURES = ("picture", "picture", "image", "photo")

# The first line names the action, further lines are sentences.
DESCRIPTIONS = """
add
{a} {has} been added {at}
{a} {has} appeared {at}
there {is} now {a} {at}
{a} can now be seen {at}
someone put {a} {at}
{a} showed up {at}

remove
{the} {at} {has} been removed
{the} {at} {has} disappeared
{the} {at} {is} gone
{the} {at} {is} no longer there
someone took {the} {at} away
{the} {at} {is} missing

replace
{the} {at} {has} been replaced by {other}
{the} {at} turned into {other}
{the} {at} became {other}
there {other_is} {other} {at} in place of {the}
{other} {other_has} taken the place of {the} {at}
instead of {the} there {other_is} {other} {at}

move
{the} {has} moved from {source} to {target}
{the} {has} been moved from {source} to {target}
{the} moved to {target}
someone moved {the} from {source} to {target}
{the} {was} shifted to {target}
{the} went to another place, from {source} to {target}

recolor
{the} {at} turned {c}
{the} {at} became {c}
{the} {at} {is} now {c}
{the} {at} changed color to {c}
someone painted {the} {at} {c}
the color of {the} {at} is {c} now

shift colors
the colors of the whole {picture} have changed
all colors in the {picture} are different
everything has another color now
the colors of the whole {picture} are different
the whole {picture} has different colors
the {picture} was recolored

brighten
the whole {picture} is brighter
the {picture} has become brighter
the {picture} was made brighter
the {picture} is much lighter now
everything looks brighter now
the brightness of the {picture} was raised

darken
the whole {picture} is darker
the {picture} has become darker
the {picture} was made darker
the {picture} is much darker now
everything looks darker now
the brightness of the {picture} was lowered

raise contrast
the {picture} has more contrast
the contrast of the {picture} is stronger
the contrast was raised
the contrast of the {picture} has been increased
light and dark differ more in the {picture}
the {picture} has a higher contrast now

lower contrast
the {picture} has less contrast
the contrast of the {picture} is weaker
the contrast was lowered
the contrast of the {picture} has been reduced
the {picture} looks flat, with less contrast
the {picture} has a lower contrast now

raise saturation
the colors of the {picture} are more vivid
the {picture} is more colorful
the colors are stronger
the colors of the {picture} are more saturated
the saturation was raised
the {picture} has more intense colors now

lower saturation
the colors of the {picture} are paler
the {picture} is less colorful
the colors are weaker
the colors of the {picture} are less saturated
the saturation was lowered
the {picture} has faded colors now

black and white
the {picture} is now black and white
the {picture} became black and white
the {picture} has lost its colors
the {picture} was turned into a black and white {picture}
the colors are gone, everything is gray
the {picture} is in grayscale now

colorize
the black and white {picture} is now in color
the {picture} has gained colors
the black and white {picture} became a color {picture}
the gray {picture} was colorized
the {picture} is no longer black and white
there are colors in the gray {picture} now

tint
the {picture} has {C} tint now
{C} tint lies over the whole {picture}
the whole {picture} looks {c}
the {picture} was tinted {c}
everything has {C} tint
{C} color cast was put over the {picture}

remove tint
the {c} tint of the {picture} is gone
the {picture} no longer has {C} tint
the {c} tint was taken off the {picture}
the {c} color cast has been removed
the {picture} lost its {c} tint
the {picture} has natural colors instead of {C} tint

blur
the whole {picture} is blurred
the {picture} has become blurry
the {picture} was blurred
the {picture} is out of focus now
everything looks blurry now
the {picture} has lost its sharpness

sharpen
the whole {picture} is sharp now
the {picture} has become sharp
the {picture} is no longer blurry
the blurred {picture} was made sharp
the {picture} is in focus now
the blur of the {picture} is gone

blur part
{the_spot} of the {picture} is blurred
{the_spot} of the {picture} has become blurry
a part of the {picture} was blurred {at}
a blurred part has appeared {at}
{the_spot} is out of focus now
something {at} was blurred

add noise
the {picture} is noisy now
noise was added to the whole {picture}
the {picture} has become grainy
there is a lot of grain in the {picture} now
the whole {picture} is covered with noise
the {picture} is full of grain

remove noise
the noise of the {picture} is gone
the noise was removed from the {picture}
the {picture} is no longer grainy
the grainy {picture} has become clean
the {picture} is clean, without noise now
the grain of the {picture} has been removed

pixelate
the whole {picture} is pixelated
the {picture} has become pixelated
the {picture} consists of large pixels now
the {picture} was turned into blocks of pixels
everything is made of large squares now
the {picture} was pixelated

pixelate part
{the_spot} of the {picture} is pixelated
{the_spot} of the {picture} has become pixelated
a part of the {picture} was pixelated {at}
a pixelated part has appeared {at}
{the_spot} consists of large pixels now
something {at} was pixelated

mirror
the {picture} is mirrored
the {picture} was mirrored from left to right
left and right have been swapped
the {picture} was flipped horizontally
the whole {picture} is reversed, as in a mirror
the {picture} shows its mirror image now

flip upside down
the {picture} was flipped upside down
the {picture} was flipped vertically
top and bottom have been swapped
the {picture} is mirrored from top to bottom
the {picture} is upside down, as a reflection in water
the whole {picture} was flipped from top to bottom

rotate left
the {picture} was rotated to the left
the {picture} was turned by 90 degrees to the left
the {picture} is rotated counterclockwise
the whole {picture} lies on its left side
the {picture} was turned counterclockwise by a quarter
the {picture} has been rotated by 90 degrees to the left

rotate right
the {picture} was rotated to the right
the {picture} was turned by 90 degrees to the right
the {picture} is rotated clockwise
the whole {picture} lies on its right side
the {picture} was turned clockwise by a quarter
the {picture} has been rotated by 90 degrees to the right

rotate by half
the {picture} was rotated by 180 degrees
the {picture} was turned by half
the {picture} has been rotated by half a turn
the {picture} stands on its head, rotated by 180 degrees
the whole {picture} was turned around by 180 degrees
the {picture} was rotated until it stood on its head

tilt left
the {picture} is tilted to the left
the {picture} was tilted to the left
the {picture} was rotated a little to the left
the whole {picture} leans to the left
the {picture} has been turned slightly counterclockwise
the {picture} is slanted to the left

tilt right
the {picture} is tilted to the right
the {picture} was tilted to the right
the {picture} was rotated a little to the right
the whole {picture} leans to the right
the {picture} has been turned slightly clockwise
the {picture} is slanted to the right

crop
the {picture} was cropped
only a part of the {picture} is left
the {picture} was cropped to a smaller part
the {picture} shows a part of the scene, enlarged
the edges of the {picture} were cut off
the {picture} is zoomed in

add text
text has been added {at}
a word has been written {at}
there is now text {at}
some text appeared {at}
a word can now be read {at}
someone wrote a word {at}

remove text
the text {at} has been removed
the word {at} has disappeared
the text {at} is gone
there is no longer any text {at}
the word {at} is missing
someone erased the text {at}

cover
{the_spot} is covered by {C} {thing}
{C} {thing} covers {the_spot}
{the_spot} of the {picture} is hidden behind {C} {thing}
{C} {thing} was put over {the_spot}
a part of the {picture} {at} is covered by {C} {thing}
{C} {thing} hides a part of the {picture} {at}

duplicate
{the} {start} {has} been copied, the copy is {at}
{the} {has} been duplicated {at}
there are two copies of {the} now, the second one {at}
a copy of {the} has appeared {at}
a second copy of {the} was put {at}
{the} {start} can be seen a second time {at}

duplicate part
a part of the {picture} has been copied from {source} to {target}
a part of {source} was copied to {target}
a part of the {picture} can be seen a second time {at}
a copy of another part of the {picture} has appeared {at}
a piece of the {picture} was duplicated {at}
{the_spot} shows a copy of another part of the {picture}

none
nothing has changed
there is no difference
the two pictures show the same scene
no change was made
everything stayed the same
the images are the same
"""

REQUESTS = """
add
add {a} {at}
put {a} {at}
insert {a} {at}
place {a} {at}
paste {a} {at}

remove
remove {the} {at}
delete {the} {at}
erase {the} {at}
take {the} {at} away
get rid of {the} {at}

replace
replace {the} {at} by {other}
replace {the} {at} with {other}
turn {the} {at} into {other}
swap {the} {at} for {other}
change {the} {at} into {other}

move
move {the} from {source} to {target}
move {the} to {target}
shift {the} from {source} to {target}
relocate {the} to {target}
move {the} away from {source}, to {target}

recolor
make {the} {at} {c}
paint {the} {at} {c}
turn {the} {at} {c}
recolor {the} {at} to {c}
change the color of {the} {at} to {c}

shift colors
change the colors of the whole {picture}
give everything another color
recolor the whole {picture}
give the whole {picture} different colors
change all colors

brighten
make the {picture} brighter
brighten the {picture}
raise the brightness
lighten the whole {picture}
increase the brightness of the {picture}

darken
make the {picture} darker
darken the {picture}
lower the brightness
make the whole {picture} darker
reduce the brightness of the {picture}

raise contrast
raise the contrast
give the {picture} more contrast
increase the contrast of the {picture}
make the contrast stronger
strengthen the contrast of the whole {picture}

lower contrast
lower the contrast
give the {picture} less contrast
reduce the contrast of the {picture}
make the contrast weaker
weaken the contrast of the whole {picture}

raise saturation
make the colors more vivid
raise the saturation
make the {picture} more colorful
increase the saturation of the {picture}
make the colors of the {picture} stronger

lower saturation
make the colors paler
lower the saturation
make the {picture} less colorful
reduce the saturation of the {picture}
make the colors of the {picture} weaker

black and white
make the {picture} black and white
turn the {picture} into black and white
convert the {picture} to grayscale
take all colors out of the {picture}
show the {picture} in black and white

colorize
colorize the black and white {picture}
give the gray {picture} colors
turn the black and white {picture} into a color {picture}
bring the colors back
show the black and white {picture} in color

tint
give the {picture} {C} tint
tint the {picture} {c}
put {C} tint over the whole {picture}
lay {C} color cast over the {picture}
make everything look {c}

remove tint
remove the {c} tint
take the {c} tint off the {picture}
get rid of the {c} color cast
correct the {c} tint of the {picture}
give the {picture} natural colors without the {c} tint

blur
blur the {picture}
make the whole {picture} blurry
blur everything
put the {picture} out of focus
take the sharpness out of the {picture}

sharpen
make the {picture} sharp
sharpen the blurred {picture}
remove the blur
bring the {picture} into focus
make the blurry {picture} sharp

blur part
blur {the_spot} of the {picture}
make {the_spot} blurry
blur a part of the {picture} {at}
put {the_spot} out of focus
blur what is {at}

add noise
add noise to the {picture}
make the {picture} grainy
put grain over the whole {picture}
make the {picture} noisy
cover the {picture} with noise

remove noise
remove the noise
remove the grain from the {picture}
clean the {picture} of noise
get rid of the grain
denoise the {picture}

pixelate
pixelate the {picture}
turn the whole {picture} into large pixels
make the {picture} of large squares
pixelate everything
show the {picture} in blocks of pixels

pixelate part
pixelate {the_spot} of the {picture}
turn {the_spot} into large pixels
pixelate a part of the {picture} {at}
make {the_spot} pixelated
pixelate what is {at}

mirror
mirror the {picture}
flip the {picture} horizontally
swap left and right
mirror the {picture} from left to right
show the {picture} as in a mirror

flip upside down
flip the {picture} upside down
flip the {picture} vertically
swap top and bottom
mirror the {picture} from top to bottom
flip the {picture} from top to bottom

rotate left
rotate the {picture} to the left
turn the {picture} by 90 degrees to the left
rotate the {picture} counterclockwise
turn the {picture} counterclockwise by a quarter
rotate the {picture} by 90 degrees to the left

rotate right
rotate the {picture} to the right
turn the {picture} by 90 degrees to the right
rotate the {picture} clockwise
turn the {picture} clockwise by a quarter
rotate the {picture} by 90 degrees to the right

rotate by half
rotate the {picture} by 180 degrees
turn the {picture} by half
rotate the {picture} by half a turn
turn the {picture} around by 180 degrees
stand the {picture} on its head by rotating it

tilt left
tilt the {picture} to the left
rotate the {picture} a little to the left
turn the {picture} slightly counterclockwise
lean the {picture} to the left
tilt the {picture} counterclockwise

tilt right
tilt the {picture} to the right
rotate the {picture} a little to the right
turn the {picture} slightly clockwise
lean the {picture} to the right
tilt the {picture} clockwise

crop
crop the {picture}
crop the {picture} to a smaller part
cut off the edges of the {picture}
zoom in
keep only a part of the {picture}

add text
add text {at}
write a word {at}
put some text {at}
insert a word {at}
add a word {at}

remove text
remove the text {at}
delete the word {at}
erase the text {at}
take the word {at} away
get rid of the text {at}

cover
cover {the_spot} with {C} {thing}
put {C} {thing} over {the_spot}
hide {the_spot} of the {picture} behind {C} {thing}
place {C} {thing} over {the_spot}
cover a part of the {picture} {at} with {C} {thing}

duplicate
copy {the}, and put the copy {at}
duplicate {the} {at}
put a copy of {the} {at}
add a second copy of {the} {at}
show {the} {start} a second time {at}

duplicate part
copy a part of the {picture} from {source} to {target}
copy a part of {source} to {target}
duplicate a piece of the {picture} {at}
put a copy of another part of the {picture} {at}
show a part of the {picture} a second time {at}

none
leave everything as it is
change nothing
do nothing
keep the picture as it is
make no change
"""

BEFORE_PLACE = {"top": "at the", "bottom": "at the", "left": "on the", "right": "on the"}


def tables(text: str) -> dict[str, tuple[str, ...]]:
    """Return the sentences of each action."""
    blocks = (block.splitlines() for block in text.strip().split("\n\n"))
    return {action: tuple(sentences) for action, *sentences in blocks}


SENTENCES: dict[Style, dict[str, tuple[str, ...]]] = {"description": tables(DESCRIPTIONS), "request": tables(REQUESTS)}


def located(place: str) -> str:
    """Return a place with its preposition: "in the upper left", "at the top"."""
    return f"{BEFORE_PLACE.get(place, 'in the')} {place}"


def words_for(rng: random.Random, change: Change) -> dict[str, str]:
    """Return what the sentences of a change have in place of their braces, with the short or the long name."""
    thing = short_or_long(rng, change.thing)
    many = thing.plural
    fields = {
        "a": thing.indefinite,
        "the": thing.definite,
        "thing": thing.text,
        "has": "have" if many else "has",
        "is": "are" if many else "is",
        "was": "were" if many else "was",
        "at": located(change.place),
        "target": f"the {change.place}",
        "the_spot": f"the {change.place}",
        "source": f"the {change.source}",
        "start": located(change.source),
        "c": change.color,
        "C": f"{article(change.color)} {change.color}",
        "picture": PICTURES[int(rng.random() * len(PICTURES))],
    }
    return {**fields, **(words_for_other(short_or_long(rng, change.other)) if change.other else {})}


def words_for_other(thing: ThingName) -> dict[str, str]:
    """Return the words for what took the place of a thing."""
    return {
        "other": thing.indefinite,
        "other_is": "are" if thing.plural else "is",
        "other_has": "have" if thing.plural else "has",
    }


def short_or_long(rng: random.Random, name: ThingName) -> ThingName:
    """Return "tiger" or "sumatran tiger"."""
    return name.head if rng.random() < 0.5 else name


def sentences(rng: random.Random, action: str, change: Change | None, style: Style) -> list[str]:
    """Return REFERENCES different sentences about a change, in random order."""
    templates = list(SENTENCES[style][action])
    chosen = [templates.pop(int(rng.random() * len(templates))) for _ in range(REFERENCES)]
    return [template.format(**words_for(rng, change)) if change else template for template in chosen]


def captions(rng: random.Random, changes: list[Change], style: Style) -> list[str]:
    """Return REFERENCES sentences about all changes of a pair; without changes, that nothing has changed."""
    if not changes:
        return sentences(rng, "none", None, style)
    parts = [sentences(rng, change.action, change, style) for change in changes]
    return [" and ".join(joined) for joined in zip(*parts, strict=True)]
