"""Settings of a program from a YAML file and the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from common_idc.settings import Options, parse_settings


@dataclass
class Settings:
    name: str = ""
    number: int = 3
    rate: float = 0.1
    size: Literal["small", "big"] = "small"
    words: list[str] = field(default_factory=lambda: ["a", "b"])
    options: Options = field(default_factory=Options)
    switch: bool = True
    other: str | None = None


def parsed(tmp_path: Path, text: str, *argv: str) -> Settings:
    (tmp_path / "c.yaml").write_text(text)
    return parse_settings(Settings, ["--config", str(tmp_path / "c.yaml"), *argv], "program", "what it does")


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    settings = parsed(tmp_path, "number: 5\nrate: -2.0e-3\nswitch: false\nname: '7'\n", "--number", "6")
    assert settings == Settings(name="7", number=6, rate=-0.002, switch=False)


@pytest.mark.parametrize(
    ("argv", "words"),
    [((), []), (("--words", "a", "b"), ["a", "b"]), (("--words=c",), ["c"])],
)
def test_an_empty_list_in_the_file_is_one(tmp_path: Path, argv: tuple[str, ...], words: list[str]) -> None:
    assert parsed(tmp_path, "words: []\n", *argv).words == words
    assert parsed(tmp_path, "words:\n").words == ["a", "b"]


def test_options_are_a_mapping_in_the_file_and_json_on_the_command_line(tmp_path: Path) -> None:
    assert parsed(tmp_path, "options: {seed: 1, day: 2020-01-01}\n").options == {"seed": 1, "day": "2020-01-01"}
    assert parsed(tmp_path, "options: {seed: 1}\n", "--options", '{"seed": 2}').options == {"seed": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: x\n", "unknown key 'nmae'; known keys: name, number"),
        ("- a\n", "must hold `key: value` lines, found list"),
        ("name: [\n", "cannot be read"),
        ("size: yes\n", "YAML reads size as True; put the text in quotes"),
        ("name: 1.0\n", "YAML reads name as 1.0; put the text in quotes"),
    ],
)
def test_a_wrong_file_is_quoted(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(tmp_path, text)
    with pytest.raises(ValueError, match="'no.yaml' cannot be read"):
        parse_settings(Settings, ["--config", "no.yaml"], "program", "")


@pytest.mark.parametrize("argv", [["--options", "[1]"], ["--numbr", "1"], ["--num", "1"], ["--size", "huge"]])
def test_a_wrong_command_line_ends_with_code_2(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_settings(Settings, argv, "program", "")
    assert stopped.value.code == 2 and argv[0].strip("-") in capsys.readouterr().err
