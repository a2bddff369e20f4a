"""Which examples are computed together."""

from hypothesis import given
from hypothesis import strategies as st

from consolidation.trainers.base import LoraConfig
from consolidation.trainers.batches import plan, rate_factor, rows, shares, split, steps_of
from tests.consolidation.lessons import lessons

WIDTHS = st.lists(st.integers(2, 500), min_size=1, max_size=40)


@given(WIDTHS, st.integers(1, 5), st.integers(1, 3), st.sampled_from(["bucket", "packed"]), st.booleans(), st.integers(0, 9))
def test_every_epoch_draws_whole_steps_and_no_example_twice(
    widths: list[int], size: int, accumulate: int, batching: str, padded: bool, seed: int
) -> None:
    lora = LoraConfig.model_validate({"batch_size": size, "accumulate": accumulate, "batching": batching, "epochs": 3})
    made = list(plan(widths, lora, seed, 256, padded))
    assert len(made) == steps_of(len(widths), lora)
    for at in range(0, len(made), max(1, len(made) // 3)):
        drawn = [n for step in made[at : at + len(made) // 3] for batch in step for n in batch]
        assert len(drawn) == len(set(drawn))
    assert all(sum(map(len, step)) == size * accumulate for step in made)
    assert made == list(plan(widths, lora, seed, 256, padded))


@given(WIDTHS, st.integers(2, 600), st.booleans())
def test_rows_hold_every_example_once_and_no_more_than_their_limit(widths: list[int], limit: int, padded: bool) -> None:
    made = rows(range(len(widths)), widths, limit, padded)
    assert sorted(n for row in made for n in row) == list(range(len(widths)))
    for row in made:
        cost = len(row) * max(widths[n] for n in row) if padded else sum(widths[n] for n in row)
        assert len(row) == 1 or cost <= limit


def test_buckets_hold_similar_lengths_and_packed_steps_do_not() -> None:
    widths = [20] * 20 + [400] * 20
    spread = {
        kind: max(
            abs(widths[a] - widths[b])
            for step in plan(widths, LoraConfig.model_validate({"batching": kind, "epochs": 1}), 0, 256, False)
            for a, b in [(min(map(min, step)), max(map(max, step)))]
        )
        for kind in ("bucket", "packed")
    }
    assert spread == {"bucket": 0, "packed": 380}


@given(st.integers(2, 50), st.sampled_from([0.0, 0.01, 0.3, 0.5]), st.integers(0, 5))
def test_validation_examples_are_never_trained_on(count: int, share: float, seed: int) -> None:
    train, held = split(count, share, seed)
    assert sorted(train + held) == list(range(count))
    assert len(held) == (max(1, int(count * share)) if share else 0)


def test_the_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    factors = [rate_factor(step, 100) for step in range(100)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 0.96]
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[-1] == 0.01
    assert rate_factor(0, 1) == 1.0


def test_batches_weigh_as_many_own_tokens_as_they_have() -> None:
    batches = [lessons(3), lessons(1)]
    own = [sum(sum(e.own[1:]) for e in batch) for batch in batches]
    assert [share for share, _ in shares(batches)] == [own[0] / sum(own), own[1] / sum(own)]
    assert sum(quiet for _, quiet in shares(batches)) == 1
