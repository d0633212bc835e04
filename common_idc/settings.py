"""The settings of a program: one dataclass, from a YAML file and the command line, which wins, and back to YAML."""

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

import yaml

Settings = TypeVar("Settings")


class Options(dict):
    """A mapping of options: a mapping in YAML, JSON on the command line."""

    def __init__(self, text: Any = "{}"):
        try:
            value = json.loads(text) if isinstance(text, str) else text
        except ValueError:
            value = None
        if not isinstance(value, dict):  # of this type, so that argparse passes the message on
            raise argparse.ArgumentTypeError(f'options must be a mapping such as {{"seed": 1}}, got {text!r}')
        super().__init__(value)


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
    return kind(**values)


def option_name(word: str) -> str:
    """Return the field that a word of the command line sets, or ""."""
    return word.split("=")[0].removeprefix("--").replace("-", "_") if word.startswith("--") else ""


def read_yaml(path: str, kind: type) -> dict[str, Any]:
    """Return the entries of a YAML file.

    Raises: ValueError for an unreadable file, an unknown key, or a text that YAML reads as something else.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"config {path!r} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"config {path!r} must hold `key: value` lines, found {type(entries).__name__}")
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
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
