"""Access to the Hugging Face Hub: checks of names and token, retries, error messages without a token."""

import json
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # HTTPError: the HTTP library's

DELAYS = (2.0, 8.0)  # seconds before the second and the third attempt
TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)  # 409 and 412: somebody else commits at the same time

logger = logging.getLogger(__name__)
T = TypeVar("T")


class PushError(OSError):
    """A failed push; the message says why and what to do."""


def check_repo_id(repo_id: str) -> None:
    """Raise PushError unless `repo_id` is <user>/<name>."""
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise PushError(f"invalid repository id {repo_id!r}: use <user>/<name>")


def check_token() -> None:
    """Raise PushError if there is no token, or one that no HTTP header can carry."""
    token = get_token()
    if token is None:
        raise PushError("there is no token for the Hub: run `hf auth login` or set HF_TOKEN, with the right to write")
    if not (token.isascii() and token.isprintable()):
        raise PushError("the Hub token contains a character that no token has: correct HF_TOKEN")


def with_retries(action: Callable[[], T], repo_id: str) -> T:
    """Return what `action` returns; repeat it after each of DELAYS if the error may be temporary.

    Raises: PushError when it is not, or after the last attempt.
    """
    for attempt in range(len(DELAYS) + 1):
        began = time.monotonic()
        try:
            return action()
        except PushError:
            raise
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # RuntimeError: the client's, around a failed upload that it may have repeated for a long time itself
            repeated = isinstance(error, RuntimeError) and time.monotonic() - began > sum(DELAYS)
            if repeated or not is_transient(error) or attempt == len(DELAYS):
                attempts = f" after {attempt + 1} attempts" if attempt else ""
                raise PushError(f"could not push to {repo_id!r}{attempts}: {describe_error(error)}") from error
            logger.warning(
                "push to %s failed (%s), trying again in %g s", repo_id, describe_error(error), DELAYS[attempt]
            )
            time.sleep(DELAYS[attempt])
    raise AssertionError("the last attempt returns or raises")


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error may be temporary: an overloaded server or a broken connection, not a refusal."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, (HTTPError, json.JSONDecodeError)):  # no JSON: a proxy's error page
        return True
    return error is not None and is_transient(error.__cause__)


def describe_error(error: BaseException) -> str:
    """Return an error's message as one line without a token, and what to do if the Hub refused access."""
    if isinstance(error, HfHubHTTPError):
        text = f"HTTP {error.response.status_code}, {error.server_message or type(error).__name__}"
        if error.response.status_code == 401:
            text += "; the Hub refuses the token: run `hf auth login`, or correct HF_TOKEN"
        elif error.response.status_code == 403:
            text += "; the token has no right to write there: use one that has, or another <user>"
    elif error.__cause__ is not None and isinstance(error, (HTTPError, OSError, RuntimeError)):
        return describe_error(error.__cause__)
    else:
        text = str(error) or type(error).__name__
    return without_token(" ".join(text.split())).rstrip(".")


def without_token(text: str) -> str:
    """Return `text` with the Hub token replaced by "(token)"."""
    text = re.sub("Bearer .*", "(token)", text)  # the HTTP library quotes a header that it cannot send
    token = get_token()
    return text.replace(token, "(token)") if token else text
