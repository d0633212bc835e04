"""Access to the Hub: repeated requests, refused input, and messages that never quote the token."""

import logging
import traceback
import warnings
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from huggingface_hub.errors import HfHubHTTPError

from common_idc import hub_access
from common_idc.hub_access import HubError, check_repo_id, check_token, describe_error, with_retries, without_token


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "DELAYS", (0.0, 0.0))


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_broken_connection_gets_three_attempts(failures: int) -> None:
    calls = []

    def action() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise hub_access.HTTPError("connection reset")
        return "done"

    if failures < 3:
        assert with_retries(action, "me/model") == "done"
    else:
        with pytest.raises(HubError, match="'me/model' after 3 attempts: connection reset"):
            with_retries(action, "me/model")
    assert len(calls) == min(failures + 1, 3)


def test_attempts_that_make_progress_start_a_new_series() -> None:
    received = [1, 1, 2, 3, 4, 4, 5, 5, 5]  # bytes after each attempt
    calls = []

    def action() -> None:
        calls.append(1)
        raise hub_access.HTTPError("connection reset")

    with pytest.raises(HubError, match="could not fetch from 'me/data' after 3 attempts: connection reset"):
        with_retries(action, "me/data", "fetch from", progress=lambda: received[len(calls) - 1] if calls else 0)
    assert len(calls) == len(received)


def refused(status: int, message: str = "no") -> HfHubHTTPError:
    return HfHubHTTPError(
        message, response=SimpleNamespace(status_code=status, headers={}, request=None), server_message=message
    )


def test_a_refusal_says_what_to_do_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "get_token", lambda: "hf_example")
    assert describe_error(refused(403)) == f"HTTP 403, no; {hub_access.FORBIDDEN['push to']}"
    assert describe_error(refused(403), "fetch from") == f"HTTP 403, no; {hub_access.FORBIDDEN['fetch from']}"
    assert "write" not in hub_access.FORBIDDEN["fetch from"]
    assert "the Hub refuses the token" in describe_error(refused(401), "fetch from")
    monkeypatch.setattr(hub_access, "get_token", lambda: None)
    assert "if the repository is private or gated" in describe_error(refused(401), "fetch from")


def test_other_errors_are_not_repeated() -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise ValueError("bad file")

    with pytest.raises(HubError, match="bad file"):
        with_retries(action, "me/model")
    assert len(calls) == 1


@pytest.mark.parametrize("repo_id", ["model", "a/b/c", "/model", "me/", ""])
def test_a_repository_id_needs_a_user_and_a_name(repo_id: str) -> None:
    with pytest.raises(HubError, match="use <user>/<name>"):
        check_repo_id(repo_id)


def test_a_missing_or_impossible_token_is_refused_and_never_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for token, message in ((None, "there is no token"), ("hf_a\nb", "contains a character")):
        monkeypatch.setattr(hub_access, "get_token", lambda token=token: token)
        with pytest.raises(HubError, match=message):
            check_token()
    monkeypatch.setattr(hub_access, "get_token", lambda: "hf_example")
    check_token()
    assert describe_error(ValueError("header hf_example\n refused.")) == "header (token) refused"


@pytest.mark.parametrize(
    "spelled",
    ["{token}", "{once}", "{twice}", "{once_lower}", "https://hub/?next={twice}&x=1", "Bearer {token}"],
)
def test_no_spelling_of_the_token_stays(monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    token = "hf_a+b/c=d"
    monkeypatch.setattr(hub_access, "get_token", lambda: token)
    once = quote(token, safe="")
    spelled = spelled.format(token=token, once=once, once_lower=once.lower(), twice=quote(once, safe=""))
    assert without_token(f"before {spelled}").startswith("before ") and "(token)" in without_token(spelled)
    assert not any(part in without_token(spelled).lower() for part in ("hf_a", "c=d", "c%"))
    monkeypatch.setattr(hub_access, "get_token", lambda: None)
    assert without_token("hf_a") == "hf_a"


@pytest.mark.parametrize("type_of_error", [ValueError, KeyError])  # one that is described, one that is a bug
def test_libraries_do_not_show_the_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, type_of_error: type[Exception]
) -> None:
    token, printed = "hf_example", []
    monkeypatch.setattr(hub_access, "get_token", lambda: token)

    def action() -> None:
        logger = logging.getLogger("huggingface_hub.utils")
        logger.warning("%s refused, %d times", token, 3)
        printed.append(warnings.formatwarning("card of hf%5Fexample", UserWarning, "file.py", 1, "line"))
        try:
            raise refused(400, f"bad {token}")
        except HfHubHTTPError as error:
            logging.getLogger("datasets").warning("failed", exc_info=True)
            raise type_of_error(f"because of {token}") from error

    with pytest.raises((HubError, KeyError)) as caught:
        with_retries(action, "me/data", "fetch from")
    shown = [caplog.text, *printed, "".join(traceback.format_exception(caught.value))]
    assert ["(token)" in text for text in shown] == [True] * 3, shown
    assert "(token) refused, 3 times" in shown[0] and "bad (token)" in shown[0]
    assert not any("example" in text for text in shown)
    logging.getLogger("huggingface_hub").warning(token)
    assert token in caplog.text  # the filter ends with the action
