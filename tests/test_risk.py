"""Figures of a run against closed forms, numpy, scipy and brute force."""

from __future__ import annotations

import time

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from test_results import synthetic

from stress import risk
from stress.results import by_path, weights
from stress.spec import RunError

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
    expected = np.quantile(values.ravel(), risk.LEVELS, weights=spread, method="inverted_cdf")
    np.testing.assert_array_equal(risk.quantile(values, risk.LEVELS, weight), expected)


def test_quantile_at_a_level_that_is_just_reached() -> None:
    values = np.arange(1.0, 11)
    np.testing.assert_array_equal(risk.quantile(values, [0.0, 0.1, 0.3, 0.7, 1.0]), [1, 1, 3, 7, 10])


def test_whole_weights_equal_copies() -> None:
    values, _ = draw(50)
    copies = np.random.default_rng(1).integers(0, 4, 50)
    repeated = np.repeat(values, copies, axis=0)
    np.testing.assert_array_equal(
        risk.quantile(values, risk.LEVELS, copies.astype(float)), risk.quantile(repeated, risk.LEVELS)
    )
    shortfall = risk.expected_shortfall(values, 0.9, copies.astype(float))
    assert shortfall == pytest.approx(risk.expected_shortfall(repeated, 0.9))
    limits = np.array([0.5, 2.0, 10.0])
    over = risk.exceedance(values, limits, copies.astype(float))[0]
    np.testing.assert_allclose(over, risk.exceedance(repeated, limits)[0])


def test_expected_shortfall_counts_the_edge_in_part() -> None:
    assert risk.expected_shortfall(np.arange(1.0, 11), 0.75) == pytest.approx((10 + 9 + 0.5 * 8) / 2.5)


def test_expected_shortfall_of_an_exponential() -> None:
    values = stats.expon.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert risk.expected_shortfall(values, 0.99) == pytest.approx(1 + np.log(100), rel=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cells", [1 << 21, 2000])
def test_bootstrap_equals_brute_force(monkeypatch, weighted, cells) -> None:
    monkeypatch.setattr(risk, "_CELLS", cells)
    values, weight = draw()
    weight = weight if weighted else np.ones(len(values))
    drawn = risk._resamples(len(values))
    quantiles, shortfalls = risk._bootstrap(risk._sort(values, weight), risk.LEVELS)
    for b in (0, 7, 199):
        again = drawn[b] * weight
        np.testing.assert_array_equal(quantiles[b], risk.quantile(values, risk.LEVELS, again))
        expected = [risk.expected_shortfall(values, level, again) for level in risk.LEVELS]
        np.testing.assert_allclose(shortfalls[b], expected, rtol=1e-9)


@pytest.mark.parametrize("reach", [slice(500, 510), slice(0, 3), slice(1190, 1200)])
def test_bootstrap_does_not_depend_on_its_window(monkeypatch, reach) -> None:
    values, weight = draw()
    sample = risk._sort(values, weight)
    plain = risk._bootstrap(sample, risk.LEVELS)
    monkeypatch.setattr(risk, "_window", lambda *_: reach)
    for narrow, wide in zip(risk._bootstrap(sample, risk.LEVELS), plain, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-9)


def test_intervals_cover_and_respect_dependence() -> None:
    """95 % intervals of the median hour hold the truth in 95 % of samples although the hours of a path are equal."""
    rng, held, widths = np.random.default_rng(3), 0, []
    for _ in range(200):
        values = np.repeat(rng.normal(size=(300, 1)), 12, axis=1)
        estimate = risk.quantile_intervals(values, [0.5])[0.5]
        held += estimate.low <= 0 <= estimate.high
        widths.append(estimate.high - estimate.low)
    error = np.sqrt(0.95 * 0.05 / 200)
    assert abs(held / 200 - 0.95) < 3 * error
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 2 / 300), rel=0.1)


def test_exceedance_equals_counting_and_its_band_brute_force() -> None:
    values, weight = draw()
    limits = np.array([0.0, 0.1, 1.0, 5.0, 1e9])
    got = risk.exceedance(values, limits, weight)
    over = (values[:, :, None] > limits).mean(axis=1)
    np.testing.assert_allclose(got[0], weight @ over / weight.sum(), atol=1e-15)
    drawn = risk._resamples(len(values)) * weight
    draws = drawn @ over / drawn.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got[1:], np.quantile(draws, risk.TAILS, axis=0), atol=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 37, 399, 400])
def test_chances_equal_scipys_exact_interval(hits) -> None:
    estimate = risk.probability(np.arange(400) < hits)
    exact = stats.binomtest(hits, 400).proportion_ci(0.95, method="exact")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((hits / 400, exact.low, exact.high))


def test_uneven_weights_widen_the_interval_of_a_chance() -> None:
    hit = np.arange(400) < 40
    weight = np.where(np.arange(400) % 2 == 0, 1.0, 0.0)
    even, half = risk.probability(hit), risk.probability(hit, weight)
    alone = risk.probability(hit[::2])
    assert half.value == pytest.approx(even.value)
    assert (half.low, half.high) == pytest.approx((alone.low, alone.high))


def test_summary_agrees_with_plain_sums() -> None:
    ds = synthetic(paths=300, hours=30)
    s = risk.summary(ds, hour_threshold=1e8, day_threshold=4e8)
    volume = ds["liquidation_volume"].astype(float)
    hourly = volume.sum(["venue", "asset", "side"])
    assert s.hourly.mean == pytest.approx(float(hourly.mean()))
    assert s.hourly.largest == pytest.approx(float(hourly.max()))
    assert s.hourly.largest == pytest.approx(float(hourly.sel(path=s.worst_path, hour=s.worst_hour)))
    assert s.some_hour_above.value == pytest.approx(float((hourly > 1e8).any("hour").mean()))
    rolling = hourly.rolling(hour=24).sum().fillna(0)
    assert s.day_above.value == pytest.approx(float((rolling > 4e8).any("hour").mean()))
    assert (s.day_hours, s.hours, s.paths, s.failed) == (24, 30, 300, 0)
    assert s.long_share == pytest.approx(float(volume.sel(side="long").sum() / volume.sum()))
    assert s.asset_shares == pytest.approx({"BTC": 0.52, "ETH": 0.28, "SOL": 0.11, "XRP": 0.06, "DOGE": 0.03})
    adl = ds["adl_volume"].astype(float).sum(["hour", "asset"])
    assert s.adl["okx"].mean == pytest.approx(float(adl.sel(venue="okx").mean()))
    fund = s.pools["bybit/main"]
    assert fund.drawdown.largest == float(ds["fund_drawdown"].sel(pool="bybit/main").max())
    assert fund.exhausted.value == float(ds["fund_exhausted_hour"].sel(pool="bybit/main").notnull().mean())


def test_weights_undo_a_tilt() -> None:
    """A run that visits the jumps three times as often, with likelihood ratios, gives the figures of the plain run."""
    paths = synthetic(paths=1000, hours=4)
    jumped = (by_path(paths, "liquidation_volume") > 3e7).astype(int)
    chosen = np.repeat(np.arange(1000), 1 + 2 * jumped)
    tilted = paths.isel(path=chosen).assign(log_weight=("path", -np.log(1 + 2 * jumped[chosen]) + 5))
    plain, weighed = risk.summary(paths), risk.summary(tilted)
    assert {q: e.value for q, e in weighed.hourly.quantiles.items()} == {
        q: e.value for q, e in plain.hourly.quantiles.items()
    }
    assert weighed.shortfall.value == pytest.approx(plain.shortfall.value)
    assert weighed.some_hour_above.value == pytest.approx(plain.some_hour_above.value)
    assert weighed.long_share == pytest.approx(plain.long_share)
    assert 300 < weighed.effective_paths < len(chosen)
    assert any("by their weights" in row.quantity for row in risk.summary_table(weighed))


def test_far_apart_weights_neither_overflow_nor_warn() -> None:
    ds = synthetic(paths=20, hours=2).assign(log_weight=("path", np.where(np.arange(20) == 3, 0.0, -5000.0)))
    assert weights(ds)[3] == 1
    s = risk.summary(ds)
    assert s.effective_paths == pytest.approx(1)
    assert all(np.isfinite(e.value) for e in s.hourly.quantiles.values())


def test_failed_paths_are_left_out_and_counted() -> None:
    ds = synthetic(paths=60, hours=3)
    broken = ds.copy(deep=True)
    for name in ("liquidation_volume", "fund_drawdown", "adl_volume"):
        broken[name][5] = np.nan
    broken["status"][5] = 2
    s, without = risk.summary(broken), risk.summary(ds.drop_sel(path=5))
    assert (s.paths, s.failed) == (59, 1)
    assert s.hourly == without.hourly
    assert risk.summary_table(broken)[0].value == "59 (1 failed and left out)"
    with pytest.raises(RunError, match="all 60 paths failed"):
        risk.summary(ds.assign(status=ds["status"] + 1))


def test_quiet_run_has_no_shares_and_no_chances() -> None:
    ds = synthetic(paths=30, hours=2)
    s = risk.summary(ds.map(np.zeros_like).assign(fund_exhausted_hour=ds["fund_exhausted_hour"] * np.nan))
    assert np.isnan(s.long_share)
    assert s.hourly.largest == 0
    assert s.some_hour_above.value == s.pools["okx/main"].exhausted.value == 0
    assert s.some_hour_above.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert all(row.value for row in risk.summary_table(s))


def test_the_same_run_prints_the_same() -> None:
    ds = synthetic(paths=100, hours=5)
    first = risk.summary_table(ds)
    risk._resamples.cache_clear()
    assert risk.summary_table(ds) == first
    assert {row.group for row in first} >= {"hourly volume", "chance per run", "fund okx/main", "ADL at bybit"}
    for row in first:
        assert row.value and "nan" not in row.value + row.interval


def test_sums_by_path_keep_dims_in_the_order_asked_for() -> None:
    ds = synthetic(paths=2500, hours=2)
    got = by_path(ds, "liquidation_volume", "side", "asset")
    expected = ds["liquidation_volume"].astype(float).sum(["hour", "venue"]).transpose("path", "side", "asset")
    np.testing.assert_allclose(got, expected.values, rtol=1e-12)


def test_sums_by_path_do_not_lose_small_flows() -> None:
    """Added in float32, a million small flows beside a large one would vanish."""
    values = np.ones((3, 1 << 18), np.float32)
    values[:, 0] = 1e9
    ds = xr.Dataset({"deficit": (("path", "hour"), values)})
    np.testing.assert_array_equal(by_path(ds, "deficit"), 1e9 + (1 << 18) - 1)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(601e6, "601 M USD"), (1.57e9, "1.57 bn USD"), (0, "0 USD"), (999.7e6, "1.00 bn USD"), (12345, "12.3 k USD")],
)
def test_amounts_read_as_people_write_them(amount, text) -> None:
    assert risk.usd(amount) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.0123, "1.2 %"), (0.00091, "0.091 %"), (0.99991, "99.991 %")]
)
def test_shares_keep_what_is_small(share, text) -> None:
    assert risk.percent(share) == text


def test_large_runs_are_quick() -> None:
    values = np.random.default_rng(0).lognormal(0, 2, (40_960, 24))
    started = time.process_time()
    risk.distribution(values, np.ones(len(values)))
    assert time.process_time() - started < 5
