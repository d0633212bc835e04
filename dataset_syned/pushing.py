"""Push prepared splits to the Hub, as Parquet with the images inside, one config at a time.

Afterwards `load_dataset("<user>/<name>")` works anywhere, streaming or not, without this package.
"""

import datasets
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi

from common_idc.hub_access import check_repo_id, check_token, with_retries

from .exporting import MARK, make_card
from .pair_builder import PairBuilder
from .pairs import DataError


def push(builder: PairBuilder, repo_id: str, private: bool | None = None, max_shard_size: str = "500MB") -> str:
    """Add or replace the builder's config of a data set on the Hub, renew its card, and return its address.

    The client repeats uploads by itself but not commits. What has been uploaded is not uploaded again.

    Args:
        repo_id: "<user>/<name>", created if it does not exist.
        private: for a new repository; None leaves it to the account's settings.

    Raises: HubError; DataError for a builder that has not been prepared.
    """
    check_repo_id(repo_id)
    splits = prepared_splits(builder)
    check_token()
    with_retries(HfApi().whoami, repo_id)  # a wrong token is reported before hours of upload
    config = builder.config.name
    with_retries(lambda: splits.push_to_hub(repo_id, config, private=private, max_shard_size=max_shard_size), repo_id)
    with_retries(lambda: push_card(builder, repo_id), repo_id)
    return f"{HfApi().endpoint}/datasets/{repo_id}"


def push_card(builder: PairBuilder, repo_id: str) -> None:
    """Add the builder's facts to the card that `datasets` wrote; a text that somebody else wrote stays."""
    card = DatasetCard.load(repo_id, repo_type="dataset")
    for entry in card.data.configs:
        # not by push_to_hub(set_default=True): a second push would remove the mark
        if entry["config_name"] == builder.DEFAULT_CONFIG_NAME:
            entry["default"] = True
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    counts = {
        config: {split: part.num_examples for split, part in info.splits.items()} for config, info in infos.items()
    }
    renewed = make_card(builder, card.data, counts, repo_id)
    if card.text.strip() and MARK not in card.text:
        renewed.text = card.text
    renewed.push_to_hub(repo_id, repo_type="dataset", commit_message="Card")


def prepared_splits(builder: PairBuilder) -> datasets.DatasetDict:
    """Return the prepared splits. Raises: DataError if there are none."""
    try:
        return builder.as_dataset()
    except FileNotFoundError as error:
        name = builder.dataset_name
        raise DataError(f"{name} is not prepared: run `python -m dataset_syned prepare {name}` first") from error
