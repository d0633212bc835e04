"""JSON with repeated keys, which the library would silently read as the last one."""

import pytest

from common_idc.strict_json import parse_json


def test_ordinary_json_is_read() -> None:
    assert parse_json('{"a": [1, {"b": null}], "c": "\\u00e9"}') == {"a": [1, {"b": None}], "c": "é"}
    assert parse_json(b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3, "a": 4}', "the key 'a' is given 3 times"),
        ('[{"x": {"y": 1, "y": 1}}]', "the key 'y' is given 2 times"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_anything_else_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
