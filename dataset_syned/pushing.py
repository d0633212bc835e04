"""Prepared splits to the Hub, as Parquet with the images inside, one config at a time.

Afterwards `load_dataset("<user>/<name>")` works anywhere, streaming or not, without this package.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # HTTPError: of the HTTP library the client uses

from .exporting import MARK, make_card
from .fetching import reason
from .pair_builder import PairBuilder
from .pairs import DataError

ATTEMPTS = 5
PAUSE = 2.0  # seconds before the second attempt, twice as long before each further one
TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)  # 409 and 412: somebody else commits at the same time

logger = logging.getLogger(__name__)


class PushError(OSError):
    """A push that did not happen; the message says why and what to do."""


def push(builder: PairBuilder, repo_id: str, private: bool | None = None, max_shard_size: str = "500MB") -> str:
    """Adds or replaces the builder's config of a data set on the Hub, and renews the card. Returns its address.

    The client itself repeats uploads but not commits: one answer of 503 would end it. What has been uploaded is not
    uploaded again.

    Args:
        repo_id: "<user>/<name>", created where it does not exist.
        private: for a new repository; None leaves it to the account's settings.

    Raises: PushError; DataError for a builder that has not been prepared.
    """
    check_repo_id(repo_id)
    splits = prepared_splits(builder)
    check_token()
    config = builder.config.name
    insist(repo_id, lambda: splits.push_to_hub(repo_id, config, private=private, max_shard_size=max_shard_size))
    insist(repo_id, lambda: push_card(builder, repo_id))
    return f"{HfApi().endpoint}/datasets/{repo_id}"


def insist(repo_id: str, step: Callable[[], Any]) -> None:
    """Repeats a step that failed by what may go away. Raises: PushError."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            step()
            return
        except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: the client's, around a failed upload
            if not is_transient(error) or attempt == ATTEMPTS:
                tries = f" after {attempt} attempts" if attempt > 1 else ""
                raise PushError(f"{repo_id!r} could not be pushed{tries}: {reason(error)}") from error
            pause = PAUSE * 2 ** (attempt - 1)
            logger.warning("push of %s failed (%s), again in %g s", repo_id, reason(error), pause)
            time.sleep(pause)


def push_card(builder: PairBuilder, repo_id: str) -> None:
    """Adds the builder's facts to the card that `datasets` wrote. A text that somebody else wrote stays."""
    card = DatasetCard.load(repo_id, repo_type="dataset")
    for entry in card.data.configs:
        # not by push_to_hub(set_default=True): done for a second time it takes the mark away
        if entry["config_name"] == builder.DEFAULT_CONFIG_NAME:
            entry["default"] = True
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    counts = {
        config: {split: part.num_examples for split, part in info.splits.items()} for config, info in infos.items()
    }
    made = make_card(builder, card.data, counts, repo_id)
    if card.text.strip() and MARK not in card.text:
        made.text = card.text
    made.push_to_hub(repo_id, repo_type="dataset", commit_message="Card")


def check_repo_id(repo_id: str) -> None:
    """Raises: PushError for a name without its owner, under which users cannot create anything."""
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise PushError(f"{repo_id!r} is no place on the Hub to push to: write <user>/<name>")


def check_token() -> None:
    """Before hours of upload. Raises: PushError."""
    if get_token() is None:
        raise PushError("there is no token for the Hub: run `hf auth login` or set HF_TOKEN, with the right to write")
    try:
        HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            return  # the push itself will tell
        raise PushError("the Hub refuses the token: run `hf auth login`, or correct HF_TOKEN") from None
    except (HTTPError, OSError) as error:
        raise PushError(f"the Hub cannot be reached: {reason(error)}") from error


def prepared_splits(builder: PairBuilder) -> datasets.DatasetDict:
    try:
        return builder.as_dataset()
    except FileNotFoundError as error:
        name = builder.dataset_name
        raise DataError(f"{name} is not prepared: run `python -m dataset_syned prepare {name}` first") from error


def is_transient(error: BaseException | None) -> bool:
    """Whether it may go away by itself: a server in trouble or a broken connection, not a refusal."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, HTTPError) or (error is not None and is_transient(error.__cause__))
