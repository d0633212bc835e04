"""Access to the Hugging Face Hub: checks of names and token, retries, error messages without a token."""

import functools
import json
import logging
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # HTTPError: the HTTP library's
from huggingface_hub.utils import get_session

DELAYS = (2.0, 8.0)  # seconds before the second and the third attempt
TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)  # 409 and 412: somebody else commits at the same time
PROBE_SECONDS = 10.0  # a slower Hub counts as unreachable

Doing = Literal["push to", "fetch from"]
FORBIDDEN: dict[Doing, str] = {  # what to do after an answer of 403
    "push to": "the token has no right to write there: use one that has, or another <user>",
    "fetch from": "if the repository is private or gated, ask for access on its page and set HF_TOKEN",
}

logger = logging.getLogger(__name__)
T = TypeVar("T")


class HubError(OSError):
    """A failed access to the Hub; the message says why and what to do."""


def check_repo_id(repo_id: str) -> None:
    """Raise HubError unless `repo_id` is <user>/<name>."""
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise HubError(f"invalid repository id {repo_id!r}: use <user>/<name>")


def check_token() -> None:
    """Raise HubError if there is no token, or one that no HTTP header can carry."""
    token = get_token()
    if token is None:
        raise HubError("there is no token for the Hub: run `hf auth login` or set HF_TOKEN, with the right to write")
    if not (token.isascii() and token.isprintable()):
        raise HubError("the Hub token contains a character that no token has: correct HF_TOKEN")


@contextmanager
def cache_if_unreachable() -> Iterator[None]:
    """Use only the files in the cache until the block ends if the Hub does not answer.

    Without this the client repeats every request for every file: two minutes of silence before it uses the cache.
    """
    offline = constants.HF_HUB_OFFLINE  # the one switch, which transformers and PEFT read too
    constants.HF_HUB_OFFLINE = offline or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@functools.cache
def _hub_answers() -> bool:
    """Ask the Hub once per process and warn if it cannot be reached."""
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except HTTPError as error:
        reason = describe_error(error)
        logger.warning("the Hub %s cannot be reached (%s): using the files in the cache", constants.ENDPOINT, reason)
        return False
    return True


def with_retries(
    action: Callable[[], T], repo_id: str, doing: Doing = "push to", progress: Callable[[], int] = lambda: 0
) -> T:
    """Return what `action` returns; repeat it after each of DELAYS if the error may be temporary.

    The token is removed from what libraries log and warn meanwhile, and from the messages of all errors.

    Args:
        progress: returns e.g. the bytes received so far; an attempt that adds some is the first of a new series.

    Raises: HubError when the error is not temporary, or after the last attempt.
    """
    attempt, reached = 1, progress()
    while True:
        began = time.monotonic()
        try:
            with _token_hidden():
                return action()
        except HubError:
            raise
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            if progress() > reached:
                attempt, reached = 1, progress()
            # RuntimeError: the client's, around a failed upload that it may have repeated for a long time itself
            repeated = isinstance(error, RuntimeError) and time.monotonic() - began > sum(DELAYS)
            reason = describe_error(error, doing)
            if repeated or not is_transient(error) or attempt > len(DELAYS):
                attempts = f" after {attempt} attempts" if attempt > 1 else ""
                raise HubError(f"could not {doing} {repo_id!r}{attempts}: {reason}") from error
            logger.warning("%s %s failed (%s), trying again in %g s", doing, repo_id, reason, DELAYS[attempt - 1])
            time.sleep(DELAYS[attempt - 1])
            attempt += 1


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error may be temporary: an overloaded server or a broken connection, not a refusal."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, (HTTPError, json.JSONDecodeError)):  # no JSON: a proxy's error page
        return True
    return error is not None and is_transient(error.__cause__)


def describe_error(error: BaseException, doing: Doing = "push to") -> str:
    """Return an error's message as one line without a token, and what to do if the Hub refused access."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        text = f"HTTP {status}, {error.server_message or type(error).__name__}"
        if status == 401 and get_token() is None:
            text += "; if the repository is private or gated, run `hf auth login`, or set HF_TOKEN"
        elif status == 401:
            text += "; the Hub refuses the token: run `hf auth login`, or correct HF_TOKEN"
        elif status == 403:
            text += f"; {FORBIDDEN[doing]}"
    elif error.__cause__ is not None and isinstance(error, (HTTPError, OSError, RuntimeError)):
        return describe_error(error.__cause__, doing)
    else:
        text = str(error) or type(error).__name__
    return without_token(" ".join(text.split())).rstrip(".")


def without_token(text: str) -> str:
    """Return `text` with the Hub token, also a percent-encoded one, replaced by "(token)"."""
    text = re.sub("Bearer .*", "(token)", text)  # the HTTP library quotes a header that it cannot send
    token = get_token()
    if not token:
        return text
    # "%5f", and "%255f" in an address that is part of another, for "_"
    spelled = "".join(f"(?:{re.escape(letter)}|%(?:25)*{ord(letter):02x})" for letter in token)
    return re.sub(spelled, "(token)", text, flags=re.IGNORECASE)


@contextmanager
def _token_hidden() -> Iterator[None]:
    """Remove the token inside the block from what is logged or warned, and from errors that leave it."""
    make_record, format_warning = logging.getLogRecordFactory(), warnings.formatwarning

    def make_record_without_token(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        with suppress(TypeError, ValueError, KeyError):  # arguments that do not fit are reported by the handler
            record.msg, record.args = without_token(record.getMessage()), None
        if record.exc_info:
            record.exc_text = without_token("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        return record

    logging.setLogRecordFactory(make_record_without_token)
    warnings.formatwarning = lambda *args, **kwargs: without_token(format_warning(*args, **kwargs))
    try:
        yield
    except Exception as error:
        _remove_token(error, set())
        raise
    finally:
        logging.setLogRecordFactory(make_record)
        warnings.formatwarning = format_warning


def _remove_token(error: BaseException | None, seen: set[int]) -> None:
    """Remove the token from the messages of an error and of those that led to it: a traceback shows all of them."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    error.args = tuple(without_token(value) if isinstance(value, str) else value for value in error.args)
    _remove_token(error.__cause__, seen)
    _remove_token(error.__context__, seen)
