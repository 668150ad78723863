"""Quantiles, shortfalls, exceedance and chances against numpy, scipy, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stress import intervals

RNG_SEED = 11


def draw(paths: int = 200, hours: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed volumes, dependent within a path, and uneven weights."""
    rng = np.random.default_rng(RNG_SEED)
    values = rng.lognormal(0, 1.5, (paths, hours)) * rng.lognormal(0, 1, (paths, 1))
    return np.round(values, 1), rng.exponential(size=paths)


@pytest.mark.parametrize("weighted", [False, True])
def test_quantiles_equal_numpys(weighted) -> None:
    values, weight = draw()
    weight = weight if weighted else np.ones(len(values))
    spread = np.repeat(weight, values.shape[1])
    expected = np.quantile(values.ravel(), intervals.LEVELS, weights=spread, method="inverted_cdf")
    np.testing.assert_array_equal(intervals.quantile(values, intervals.LEVELS, weight), expected)


def test_quantile_at_a_level_that_is_just_reached() -> None:
    values = np.arange(1.0, 11)
    np.testing.assert_array_equal(intervals.quantile(values, [0.0, 0.1, 0.3, 0.7, 1.0]), [1, 1, 3, 7, 10])


def test_whole_weights_equal_copies() -> None:
    values, _ = draw(50)
    copies = np.random.default_rng(1).integers(0, 4, 50)
    repeated = np.repeat(values, copies, axis=0)
    np.testing.assert_array_equal(
        intervals.quantile(values, intervals.LEVELS, copies.astype(float)),
        intervals.quantile(repeated, intervals.LEVELS),
    )
    shortfall = intervals.expected_shortfall(values, 0.9, copies.astype(float))
    assert shortfall == pytest.approx(intervals.expected_shortfall(repeated, 0.9))
    limits = np.array([0.5, 2.0, 10.0])
    over = intervals.exceedance(values, limits, copies.astype(float))[0]
    np.testing.assert_allclose(over, intervals.exceedance(repeated, limits)[0])


def test_expected_shortfall_counts_the_edge_in_part() -> None:
    assert intervals.expected_shortfall(np.arange(1.0, 11), 0.75) == pytest.approx((10 + 9 + 0.5 * 8) / 2.5)


def test_expected_shortfall_of_an_exponential() -> None:
    values = stats.expon.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert intervals.expected_shortfall(values, 0.99) == pytest.approx(1 + np.log(100), rel=1e-3)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95, 0.99])
def test_intervals_of_quantiles_are_order_statistics(level) -> None:
    """Found by brute force: the closest ones that are beyond the quantile with a chance of at most 2.5 % each."""
    for paths in (7, 40, 400):
        e = intervals.quantile_intervals(np.random.default_rng(2).permutation(paths).astype(float), [level])[level]
        lower = [j for j in range(paths) if stats.binom.cdf(j, paths, level) <= 0.025]
        upper = [j for j in range(paths) if stats.binom.sf(j, paths, level) <= 0.025]
        assert (e.low, e.high) == (max(lower, default=-np.inf), min(upper, default=np.inf))
        assert e.exact


def test_an_end_that_the_paths_cannot_tell_is_open() -> None:
    """With 368 paths the largest is below the 99 % quantile with a chance of 2.48 %, with 367 of 2.50 %."""
    assert intervals.quantile_intervals(np.arange(367.0), [0.99])[0.99].high == np.inf
    assert intervals.quantile_intervals(np.arange(368.0), [0.99])[0.99].high == 367
    few = intervals.shortfall_interval(np.arange(100.0), 0.99)
    assert few.high == np.inf and few.low < few.value


def test_equal_values_are_one_place() -> None:
    values = np.repeat([0.0, 5.0, 9.0], [900, 90, 10])
    found = intervals.quantile_intervals(values, [0.5, 0.9, 0.95])
    assert [(e.low, e.value, e.high) for e in found.values()] == [(0, 0, 0), (0, 0, 5), (5, 5, 5)]


def test_hours_that_are_equal_within_a_path_tell_no_more_than_one() -> None:
    values = np.random.default_rng(3).lognormal(size=(400, 1))
    for level in (0.5, 0.95):
        one, many = (intervals.quantile_intervals(v, [level])[level] for v in (values, np.repeat(values, 12, axis=1)))
        assert (many.low, many.value, many.high) == (one.low, one.value, one.high)
    one, many = (intervals.shortfall_interval(v, 0.9) for v in (values, np.repeat(values, 12, axis=1)))
    assert (many.low, many.value, many.high) == pytest.approx((one.low, one.value, one.high))


def test_intervals_ignore_the_scale_of_weights_and_the_order_of_paths() -> None:
    values, weight = draw()
    shuffled = np.random.default_rng(5).permutation(len(values))
    for f in (intervals.shortfall_interval, lambda v, q, w: intervals.quantile_intervals(v, [q], w)[q]):
        one, two = f(values, 0.9, weight), f(values[shuffled], 0.9, 1e-30 * weight[shuffled])
        assert (one.low, one.value, one.high) == pytest.approx((two.low, two.value, two.high))


def test_exceedance_equals_counting_and_the_chance_of_a_path() -> None:
    values, weight = draw()
    limits = np.array([0.0, 0.1, 1.0, 5.0, 1e9])
    got = intervals.exceedance(values, limits, weight)
    over = (values[:, :, None] > limits).mean(axis=1)
    np.testing.assert_allclose(got[0], weight @ over / weight.sum(), atol=1e-15)
    assert np.all((got[1] <= got[0]) & (got[0] <= got[2]))
    largest = values.max(axis=1)
    for limit, (value, low, high) in zip(limits, intervals.exceedance(largest, limits).T, strict=True):
        e = intervals.probability(largest > limit)
        assert (value, low, high) == pytest.approx((e.value, e.low, e.high))


def test_draws_by_which_a_chance_is_known_are_those_of_the_linearised_variance() -> None:
    values, weight = draw()
    hits = (values > 2).mean(axis=1)
    jackknife = [np.delete(weight, i) @ np.delete(hits, i) / np.delete(weight, i).sum() for i in range(len(hits))]
    variance = (len(hits) - 1) * np.var(jackknife)
    share = weight @ hits / weight.sum()
    assert intervals.effective_draws(hits, weight) == pytest.approx(share * (1 - share) / variance, rel=0.05)


def test_critical_values_are_students_for_many_exceedances_of_a_light_tail() -> None:
    low, high = intervals._critical(400, 1e-6)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.2)
    assert intervals._critical(10, 1 / 3)[0] < -4


@pytest.mark.parametrize("hits", [0, 1, 37, 399, 400])
def test_chances_equal_scipys_exact_interval(hits) -> None:
    estimate = intervals.probability(np.arange(400) < hits)
    exact = stats.binomtest(hits, 400).proportion_ci(0.95, method="exact")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((hits / 400, exact.low, exact.high))


def test_uneven_weights_widen_the_interval_of_a_chance() -> None:
    hit = np.arange(400) < 40
    weight = np.where(np.arange(400) % 2 == 0, 2.0, 0.0)
    even, half = intervals.probability(hit), intervals.probability(hit, weight)
    alone = intervals.probability(hit[::2])
    assert half.value == pytest.approx(even.value)
    assert half.low < alone.low < alone.high < half.high
    assert (half.low, half.high) == pytest.approx((alone.low, alone.high), abs=0.002)


def test_chances_with_weights_are_of_the_rarer_side_and_not_divided_by_the_mean_weight() -> None:
    weight = np.tile([2.0, 0.5, 0.4], 50)
    hit = np.arange(150) % 30 == 0
    rare, likely = intervals.probability(hit, weight), intervals.probability(~hit, weight)
    assert isinstance(rare, intervals.Weighed) and isinstance(likely, intervals.Weighed)
    assert rare.value == pytest.approx(5 * 2.0 / 150)
    assert (likely.value, likely.low, likely.high) == pytest.approx((1 - rare.value, 1 - rare.high, 1 - rare.low))
    assert rare.hits == likely.hits == pytest.approx(5)
    assert rare.draws == pytest.approx(rare.value * (1 - rare.value) / (np.var(weight * hit) / 150))


def test_what_happens_on_no_path_may_have_been_as_heavy_as_the_heaviest() -> None:
    found = intervals.probability(np.zeros(150, bool), np.tile([2.0, 0.0], 75))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 75))
