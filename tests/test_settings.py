"""Settings of a program from a YAML file and the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import pytest
import yaml

from common_idc.settings import (
    NonNegativeFloat,
    Options,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    as_yaml,
    check_ranges,
    option,
    parse_settings,
    parse_yaml,
)
from dataset_syned.synthesis.settings import SynthesisConfig
from train import TrainConfig


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
def test_an_empty_list_in_the_file_replaces_the_default(
    tmp_path: Path, argv: tuple[str, ...], words: list[str]
) -> None:
    assert parsed(tmp_path, "words: []\n", *argv).words == words
    assert parsed(tmp_path, "words:\n").words == ["a", "b"]


def test_options_are_a_mapping_in_the_file_and_json_on_the_command_line(tmp_path: Path) -> None:
    assert parsed(tmp_path, "options: {seed: 1, day: 2020-01-01}\n").options == {"seed": 1, "day": "2020-01-01"}
    assert parsed(tmp_path, "options: {seed: 1}\n", "--options", '{"seed": 2}').options == {"seed": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: x\n", "unknown key 'nmae'; known keys: name, number"),
        ("- a\n", "must contain `key: value` lines, found list"),
        ("name: [\n", "cannot be read"),
        ("size: true\n", "YAML reads size as True; put the text in quotes"),
        ("number: 1\nrate: 2\nnumber: 3\n", "line 1: the key 'number' is given 2 times"),
        ("options: {a: {b: 1, b: 2}}\n", "line 1: the key 'b' is given 2 times"),
        ("name: &x a\nother: *x\n", r"line 2: write the value out instead of \*x"),
        ("options: " + "[" * 3000, "cannot be read: it is nested too deeply"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1e-4", 0.0001),
        ("5.", 5.0),
        ("yes", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("TRUE", True),
        (".inf", float("inf")),
    ],
)
def test_values_are_read_as_yaml_1_2_says(text: str, value: Any) -> None:
    found = parse_yaml(f"x: {text}")["x"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["010", "0o10", "1:30", "1e-4", "yes", "no", "~", "null", "2020-01-01", "*x", "é\n"])
def test_what_is_written_is_read_back_and_has_no_other_meaning_for_pyyaml(text: str) -> None:
    written = as_yaml(Settings(name=text, words=[text, text]))
    assert Settings(**parse_yaml(written)) == Settings(**yaml.safe_load(written)) == Settings(text, words=[text] * 2)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = "name: ~/a\nwords: [~/b, c~]\noptions: {x: {data_dir: ~/d}}\n"
    expected = {"name": "/home/me/a", "words": ["/home/me/b", "c~"], "options": {"x": {"data_dir": "/home/me/d"}}}
    settings = parsed(tmp_path, text, "--other", "~/e")
    assert settings == Settings(**expected, other="/home/me/e") and isinstance(settings.options, Options)
    (tmp_path / "f.yaml").write_text("number: 7\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_settings(Settings, ["--config", "~/f.yaml"], "program", "").number == 7


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert parsed(tmp_path, "\ufeffnumber: 5\n").number == 5


@dataclass
class Numbers:
    count: PositiveInt = option(1, "")
    share: Annotated[float, Range(at_least=0, below=1)] = option(0.0, "")
    rates: list[PositiveFloat] = option([1.0], "")
    decay: NonNegativeFloat | None = option(None, "")
    seed: Seed = option(0, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count=0 must be at least 1"),
        ({"share": 1.0}, "share=1.0 must be at least 0 and below 1"),
        ({"share": float("nan")}, "share=nan must be at least 0 and below 1 and finite"),
        ({"rates": [2.0, 0.0]}, "rates=0.0 must be above 0"),
        ({"decay": float("inf")}, "decay=inf must be at least 0 and finite"),
        ({"decay": -0.1}, "decay=-0.1 must be at least 0"),
        ({"seed": 2**32}, "seed=4294967296 must be at least 0 and below 4.29497e"),
    ],
)
def test_a_number_outside_its_range_is_quoted(values: dict[str, Any], message: str) -> None:
    check_ranges(Numbers())
    with pytest.raises(ValueError, match=message):
        check_ranges(Numbers(**values))


def accepts_any_number(hint: Any) -> bool:
    """Return whether a type hint, or a part of it, is a number without a range."""
    if any(isinstance(extra, Range) for extra in getattr(hint, "__metadata__", ())):
        return False
    return hint in (int, float) or any(map(accepts_any_number, get_args(hint)))


@pytest.mark.parametrize("config", [TrainConfig, SynthesisConfig])
def test_every_number_of_a_program_has_a_range_that_contains_its_default(config: type) -> None:
    check_ranges(config())
    for name, hint in get_type_hints(config, include_extras=True).items():
        assert not accepts_any_number(hint), name


def test_instances_do_not_share_a_default() -> None:
    Numbers().rates.append(2.0)
    assert Numbers().rates == [1.0]
