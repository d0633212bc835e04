"""The settings of a program: one dataclass, from a YAML file and the command line, which wins, and back to YAML."""

import argparse
import copy
import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from .strict_json import parse_json

Settings = TypeVar("Settings")


class Options(dict):
    """A mapping of options: a mapping in YAML, JSON on the command line."""

    def __init__(self, text: Any = "{}"):
        try:
            value = parse_json(text) if isinstance(text, str) else text
        except ValueError as error:  # of this type, so that argparse passes the message on
            raise argparse.ArgumentTypeError(f"options {text!r} are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise argparse.ArgumentTypeError(f'options must be a mapping such as {{"seed": 1}}, got {text!r}')
        super().__init__(value)


@dataclass(frozen=True)
class Range:
    """The finite numbers that a setting accepts, as an annotation of its type: `Annotated[int, Range(at_least=1)]`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def contains(self, value: float) -> bool:
        """Return whether `value` is a finite number of the range."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {name: limit for name, limit in vars(self).items() if limit is not None}
        return " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in limits.items()) or "finite"


PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]
AnyFloat = Annotated[float, Range()]
Seed = Annotated[int, Range(at_least=0, below=2**32)]  # the seeds that NumPy accepts


def option(default: Any, help: str) -> Any:
    """Return a dataclass field with its default, of which every instance gets its own copy, and its help."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def check_ranges(settings: Any) -> None:
    """Raise ValueError for a number that is not in the range of its field's annotation."""
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        for limits in _ranges(hint):
            value = getattr(settings, name)
            for number in value if isinstance(value, list) else [] if value is None else [value]:
                if not limits.contains(number):
                    finite = "" if math.isfinite(number) else " and finite"
                    raise ValueError(f"{name}={number} must be {limits}{finite}")


def _ranges(hint: Any) -> list[Range]:
    """Return the ranges in a type hint such as `list[PositiveInt] | None`."""
    found = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)]
    return found + [limits for argument in get_args(hint) for limits in _ranges(argument)]


# The core schema of YAML 1.2.2, section 10.3.2: tag, first characters, pattern.
YAML_12 = (
    ("tag:yaml.org,2002:null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("tag:yaml.org,2002:bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
    ("tag:yaml.org,2002:int", "-+0123456789", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (
        "tag:yaml.org,2002:float",
        "-+.0123456789",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
)


def _resolvers(others: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return PyYAML's table, first character -> (tag, pattern), with YAML_12 after the others."""
    table = {first: list(rules) for first, rules in others.items()}
    for tag, characters, pattern in YAML_12:
        for first in characters:
            table.setdefault(first, []).append((tag, re.compile(f"^(?:{pattern})$")))
    return table


def _construct_int(loader: yaml.SafeLoader, node: Any) -> int:
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


class YamlLoader(yaml.SafeLoader):
    """Safe loader of YAML 1.2's core schema, without aliases and repeated keys.

    PyYAML reads YAML 1.1, where 010 is 8, 1:30 is 90 and `no` is false.
    """

    yaml_implicit_resolvers = _resolvers({})
    yaml_constructors = {**yaml.SafeLoader.yaml_constructors, "tag:yaml.org,2002:int": _construct_int}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: write the value out instead of *{event.anchor}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse repeated keys, of which the last would silently win."""
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                times = keys.count(key.value)
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given {times} times")
        return super().construct_mapping(node, deep)


class YamlDumper(yaml.SafeDumper):
    """Safe dumper that quotes the texts that YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a list that occurs twice is written twice."""
        return True


def parse_settings(kind: type[Settings], argv: list[str], prog: str, description: str) -> Settings:
    """Return the settings from `--config FILE` and the other options, which win over the file.

    Args:
        kind: a dataclass; every field becomes an option, with the help in the field's metadata.

    Raises: ValueError for a file that cannot be read or has an unknown key; SystemExit as argparse does.
    """
    from transformers import HfArgumentParser  # which takes seconds; settings classes are also defined elsewhere

    parser = HfArgumentParser(kind, prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML with any of these options; the command line wins")
    given = parser.parse_args(argv)
    entries = read_yaml(given.config, kind) if given.config else {}
    from_file = []
    for name, value in entries.items():
        if value in (None, []):
            continue
        if isinstance(value, list):
            from_file += [f"--{name}", *map(str, value)]
        else:  # "=", because a value may begin with a minus
            from_file.append(f"--{name}={json.dumps(value, default=str) if isinstance(value, dict) else value}")
    values = vars(parser.parse_args(from_file + argv))
    values.pop("config")
    for name in entries:  # an empty list, which the command line cannot express
        if entries[name] == [] and not any(option_name(word) == name for word in argv):
            values[name] = []
    return kind(**{name: expand_home(value) for name, value in values.items()})


def expand_home(value: Any) -> Any:
    """Return the same with `~` at the beginning of a text, at any depth, replaced by the home folder."""
    if isinstance(value, str):
        return os.path.expanduser(value)
    if isinstance(value, list):
        return [expand_home(entry) for entry in value]
    if isinstance(value, dict):
        return type(value)({key: expand_home(entry) for key, entry in value.items()})
    return value


def option_name(word: str) -> str:
    """Return the field that a word of the command line sets, or ""."""
    return word.split("=")[0].removeprefix("--").replace("-", "_") if word.startswith("--") else ""


def read_yaml(path: str, kind: type) -> dict[str, Any]:
    """Return the entries of a YAML file.

    Raises: ValueError for an unreadable file, an unknown key, or a text that YAML reads as something else.
    """
    try:
        entries = parse_yaml(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"config {path!r} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"config {path!r} must contain `key: value` lines, found {type(entries).__name__}")
    known = {entry.name for entry in dataclasses.fields(kind)}
    unknown = sorted(str(name) for name in entries if name not in known)
    if unknown:
        raise ValueError(f"config {path!r}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(known))}")
    for entry in dataclasses.fields(kind):
        value = entries.get(entry.name)
        takes_text = entry.type in (str, str | None) or get_origin(entry.type) is Literal
        if takes_text and not isinstance(value, str | None):
            raise ValueError(f"config {path!r}: YAML reads {entry.name} as {value!r}; put the text in quotes")
    return entries


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text. Raises: ValueError that says what is wrong with it."""
    try:
        return yaml.load(text, YamlLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def as_yaml(config: Any, without: Iterable[str] = ()) -> str:
    """Return the YAML of a settings dataclass, from which `parse_settings` gives it back.

    Args:
        without: names of fields to leave out.
    """
    left_out = set(without)
    entries = {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in vars(config).items()
        if name not in left_out
    }
    return yaml.dump(entries, Dumper=YamlDumper, sort_keys=False, allow_unicode=True)
