"""Push prepared splits to the Hub, as Parquet with the images inside, one config at a time.

Afterwards `load_dataset("<user>/<name>")` works anywhere, streaming or not, without this package.
"""

import datasets
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # HTTPError: the HTTP library's

from common_idc.hub_access import PushError, check_repo_id, check_token, describe_error, with_retries

from .exporting import MARK, make_card
from .pair_builder import PairBuilder
from .pairs import DataError


def push(builder: PairBuilder, repo_id: str, private: bool | None = None, max_shard_size: str = "500MB") -> str:
    """Add or replace the builder's config of a data set on the Hub, renew the card, and return the address.

    The client itself repeats uploads but not commits: one answer of 503 would end it. What has been uploaded is not
    uploaded again.

    Args:
        repo_id: "<user>/<name>", created if it does not exist.
        private: for a new repository; None leaves it to the account's settings.

    Raises: PushError; DataError for a builder that has not been prepared.
    """
    check_repo_id(repo_id)
    splits = prepared_splits(builder)
    check_login()
    config = builder.config.name
    with_retries(lambda: splits.push_to_hub(repo_id, config, private=private, max_shard_size=max_shard_size), repo_id)
    with_retries(lambda: push_card(builder, repo_id), repo_id)
    return f"{HfApi().endpoint}/datasets/{repo_id}"


def push_card(builder: PairBuilder, repo_id: str) -> None:
    """Add the builder's facts to the card that `datasets` wrote; keep a text that somebody else wrote."""
    card = DatasetCard.load(repo_id, repo_type="dataset")
    for entry in card.data.configs:
        # not by push_to_hub(set_default=True), which removes the mark when called again
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


def check_login() -> None:
    """Raise PushError before hours of upload if the Hub refuses the token or cannot be reached."""
    check_token()
    try:
        HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            return  # the push itself will tell
        raise PushError("the Hub refuses the token: run `hf auth login`, or correct HF_TOKEN") from None
    except (HTTPError, OSError) as error:
        raise PushError(f"the Hub cannot be reached: {describe_error(error)}") from error


def prepared_splits(builder: PairBuilder) -> datasets.DatasetDict:
    """Return the prepared splits.

    Raises: DataError if the builder has not been prepared.
    """
    try:
        return builder.as_dataset()
    except FileNotFoundError as error:
        name = builder.dataset_name
        raise DataError(f"{name} is not prepared: run `python -m dataset_syned prepare {name}` first") from error
