"""Order and captions of training pairs, whichever number of processes shares the work."""

from collections import Counter

import datasets
import pytest

from dataset_syned.epoch_order import PairOrder, TrainingPairs


def order(**changes: object) -> PairOrder:
    settings = {"sizes": [23], "weights": [1.0], "seed": 3, "batch_size": 4, **changes}
    return PairOrder(**settings)


def pairs_of_steps(orders: list[PairOrder]) -> list[list[int]]:
    """Return the pairs of each step over all processes, without padding items."""
    shares = [list(pair_order) for pair_order in orders]
    steps, position = [], 0
    for step in range(orders[0].first_step, orders[0].steps):
        count = orders[0].batches_in_step(step)
        batches = [batch for share in shares for batch in share[position : position + count]]
        steps.append(sorted(item for batch in batches for item in batch if item >= 0))
        position += count
    assert all(len(share) == position == len(pair_order) for share, pair_order in zip(shares, orders, strict=True))
    return steps


@pytest.mark.parametrize(("processes", "batch", "batches"), [(1, 8, 1), (1, 1, 8), (2, 4, 1), (2, 2, 2), (8, 1, 1)])
def test_each_step_has_the_same_pairs_however_they_are_shared(processes: int, batch: int, batches: int) -> None:
    shared = [
        order(batch_size=batch, batches=batches, process=process, processes=processes) for process in range(processes)
    ]
    steps = pairs_of_steps(shared)
    assert steps == pairs_of_steps([order(batch_size=8)])
    assert sorted(sum(steps, [])) == list(range(23)) and [len(step) for step in steps] == [8, 8, 7]


def test_a_process_without_pairs_gets_a_padding_item() -> None:
    last = [list(order(sizes=[9], process=process, processes=2))[-1] for process in range(2)]
    assert len(last[0]) == 1 and last[0][0] >= 0 and last[1] == [~last[0][0]]


def test_order_depends_on_epoch_and_seed() -> None:
    first, second = order(), order()
    second.epoch = 1
    assert first.items().tolist() == order().items().tolist() != second.items().tolist()
    assert first.items().tolist() != order(seed=4).items().tolist()


def test_an_epoch_can_start_at_a_later_step() -> None:
    whole, rest = order(batches=2), order(batches=2)
    rest.first_step = 1
    assert list(rest) == list(whole)[2:]


def test_pairs_of_a_mix_are_shuffled_together() -> None:
    """Each half of the epoch has about half of each benchmark."""
    mixed = order(sizes=[100, 100], weights=[1.0, 1.0])
    first_half = mixed.items()[:100]
    assert 30 < sum(first_half < 100) < 70
    assert len({tuple(order(sizes=[100, 100], weights=[1.0, 1.0], seed=seed).items() < 100) for seed in range(5)}) == 5


def test_weights_set_how_often_pairs_of_a_benchmark_are_drawn() -> None:
    mixed = order(sizes=[10, 8, 6], weights=[1.0, 0.5, 2.5])
    rows = Counter(item % 24 for item in mixed.items().tolist())
    assert mixed.pairs == len(mixed.items()) == 10 + 4 + 15
    assert all(rows[row] == 1 for row in range(10))
    assert sum(row in rows for row in range(10, 18)) == 4
    assert sorted(rows[row] for row in range(18, 24)) == [2, 2, 2, 3, 3, 3]
    other = order(sizes=[10, 8, 6], weights=[1.0, 0.5, 2.5])
    other.epoch = 1
    halves = [{item % 24 for item in epoch.items().tolist()} & set(range(10, 18)) for epoch in (mixed, other)]
    assert halves[0] != halves[1], "another half in the next epoch"


def rows() -> datasets.Dataset:
    captions = [[f"{letter} one", f"{letter} two words", f"{letter} 1"] for letter in "abcdefgh"]
    columns = {"pair_id": list("abcdefgh"), "before": [""] * 8, "after": [""] * 8, "captions": captions}
    return datasets.Dataset.from_dict(columns)


def test_captions_depend_on_seed_epoch_pair_and_copy() -> None:
    pairs = TrainingPairs(rows(), seed=1)

    def drawn(epoch: int, copy: int = 0) -> list[str]:
        pairs.epoch = epoch
        return [pairs[copy * 8 + index]["caption"] for index in range(8)]

    assert drawn(0) == drawn(0) and len({tuple(drawn(0)), tuple(drawn(1)), tuple(drawn(0, copy=1))}) == 3
    assert drawn(0) != [TrainingPairs(rows(), seed=2)[index]["caption"] for index in range(8)]
    assert len({text.split()[1] for epoch in range(5) for text in drawn(epoch)}) == 3, "all references are drawn"


def test_the_shortest_caption_can_be_chosen() -> None:
    pairs = TrainingPairs(rows(), seed=1, caption_choice="shortest")
    assert [pairs[index]["caption"] for index in range(3)] == ["a 1", "b 1", "c 1"]


def test_padding_items_have_weight_zero() -> None:
    pairs = TrainingPairs(rows(), seed=1)
    assert (pairs[2]["weight"], pairs[~2]["weight"]) == (1, 0) and pairs[~2]["pair_id"] == pairs[2]["pair_id"] == "c"
