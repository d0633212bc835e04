"""What leaves this machine: names of folders without their place, texts without the token."""

from pathlib import Path

import pytest

from common_idc.redaction import folder_name, is_local, without_paths


def test_paths_are_cut_and_other_texts_stay(tmp_path: Path) -> None:
    (tmp_path / "my models").mkdir()
    cut = {
        str(tmp_path / "my models"): "my models",
        "/home/alice/run/": "run",
        "~/run": "run",
        "train.py --config /home/alice/c.yaml --x=~/data/toy": "train.py --config c.yaml --x=toy",
    }
    assert without_paths({"x": list(cut)}) == {"x": list(cut.values())}
    same = [
        "Salesforce/blip2-opt-2.7b",
        "https://github.com/a/b/c",
        "a red/blue ball",
        "",
        1.5,
        None,
        True,
        r"a\..*\.b",
    ]
    assert without_paths({"x": same}) == {"x": same}


def test_the_token_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert without_paths(["x hf_secret y", {"a": "hf_secret"}]) == ["x (token) y", {"a": "(token)"}]


def test_a_folder_cannot_be_taken_for_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert folder_name("me/model") == "./me/model"
    assert without_paths(folder_name("me/model")) == "model" and is_local("./me/model")
    for name in (None, "./me/model", str(tmp_path), "me/other", "../x"):
        assert folder_name(name) == name
    monkeypatch.chdir("/")
    assert is_local("./me/model") and not is_local("me/model")
