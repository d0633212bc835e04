"""Access to the Hub: what is repeated, what is refused, and messages without a token."""

import pytest

from common_idc import hub_access
from common_idc.hub_access import PushError, check_repo_id, check_token, describe_error, with_retries


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "DELAYS", (0.0, 0.0))


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_broken_connection_is_tried_three_times(failures: int) -> None:
    calls = []

    def action() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise hub_access.HTTPError("connection reset")
        return "done"

    if failures < 3:
        assert with_retries(action, "me/model") == "done"
    else:
        with pytest.raises(PushError, match="'me/model' after 3 attempts: connection reset"):
            with_retries(action, "me/model")
    assert len(calls) == min(failures + 1, 3)


def test_other_errors_are_not_repeated() -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise ValueError("bad file")

    with pytest.raises(PushError, match="bad file"):
        with_retries(action, "me/model")
    assert len(calls) == 1


@pytest.mark.parametrize("repo_id", ["model", "a/b/c", "/model", "me/", ""])
def test_a_repository_has_a_user_and_a_name(repo_id: str) -> None:
    with pytest.raises(PushError, match="use <user>/<name>"):
        check_repo_id(repo_id)


def test_a_missing_or_impossible_token_is_refused_and_never_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for token, message in ((None, "there is no token"), ("hf_a\nb", "contains a character")):
        monkeypatch.setattr(hub_access, "get_token", lambda token=token: token)
        with pytest.raises(PushError, match=message):
            check_token()
    monkeypatch.setattr(hub_access, "get_token", lambda: "hf_example")
    check_token()
    assert describe_error(ValueError("header hf_example\n refused.")) == "header (token) refused"
