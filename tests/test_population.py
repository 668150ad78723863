"""The synthetic population: exact shares, distributions against closed forms, and how little a seed matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import expon, kstest

from stress.population import Population, _allocate, _lattice
from stress.portfolio import Positions
from stress.spec import InputError, read_toml, validate
from stress.triggers import deductions, maintenance

CONFIGS = Path(__file__).parent.parent / "configs" / "populations"
VENUES = ("binance", "bybit", "okx")
PRICES = {"BTC": 112000.0, "ETH": 4100.0, "SOL": 185.0, "XRP": 2.6, "DOGE": 0.22}
ASSETS = tuple(PRICES)
START = np.array(list(PRICES.values()))
VOLATILITY = np.array([0.026, 0.032, 0.05, 0.039, 0.047])
FLAT = np.zeros((3, 5, 1)), np.full((3, 5, 1), 0.005)
TIERED = (
    np.broadcast_to(np.array([0, 5e4, 6e5, 3e6, 1.2e7, np.inf]), (3, 5, 6)),
    np.broadcast_to(np.array([0.004, 0.005, 0.0065, 0.01, 0.02, 0.02]), (3, 5, 6)),
)


def table(name: str = "default", **changes: Any) -> dict[str, Any]:
    """The population of a config file with keys changed; `a__b` stands for key b of table a."""
    data = read_toml(CONFIGS / f"{name}.toml") | {"rows": 60_000}
    for key, value in changes.items():
        *parents, last = key.split("__")
        place: dict[str, Any] = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return data


def population(name: str = "default", **changes: Any) -> Population:
    return validate(Population, table(name, **changes), name)


def draw(spec: Population, tiers: tuple[np.ndarray, np.ndarray] = TIERED) -> Positions:
    return spec.draw(VENUES, ASSETS, START, VOLATILITY, *tiers)


def notional(drawn: Positions) -> np.ndarray:
    """Of one account of each row, now [USD]."""
    return np.abs(drawn.quantity) * START[drawn.asset]


def equity(drawn: Positions, price: np.ndarray) -> np.ndarray:
    return drawn.margin + drawn.quantity * (price[drawn.asset] - drawn.entry_price)


def triggered(drawn: Positions, move: float, tiers: tuple[np.ndarray, np.ndarray] = TIERED) -> float:
    """Notional now of accounts at or past their trigger when every price has moved [USD]."""
    floor, rate = tiers
    size = notional(drawn)
    market = drawn.venue, drawn.asset
    needed = maintenance(size * (1 + move), rate[market], deductions(floor, rate)[market])
    return float((size * drawn.count)[equity(drawn, START * (1 + move)) <= needed].sum())


def test_money_is_exact_by_venue_asset_and_side_although_rows_are_left_out() -> None:
    spec = population(margin_cushion=0.02)
    drawn = draw(spec)
    assert len(drawn) < 0.999 * spec.rows
    held = notional(drawn) * drawn.count
    for v, venue in enumerate(VENUES):
        for a, asset in enumerate(ASSETS):
            for side, money in ((1, 51e9), (-1, 27e9)):
                here = (drawn.venue == v) & (drawn.asset == a) & (np.sign(drawn.quantity) == side)
                expected = money * spec.venue_shares[venue] * spec.asset_shares[asset]
                assert held[here].sum() == pytest.approx(expected, rel=1e-12)


def test_kept_accounts_have_the_cushion_and_only_the_others_are_left_out() -> None:
    floor, rate = TIERED
    kept, every = draw(population(margin_cushion=0.02)), draw(population(margin_cushion=0.0), (floor, rate * 1e-9))

    def slack(drawn: Positions) -> np.ndarray:
        market = drawn.venue, drawn.asset
        needed = maintenance(notional(drawn), rate[market], deductions(floor, rate)[market])
        return (equity(drawn, START) - needed) / notional(drawn)

    assert len(every) == 60_000
    assert slack(kept).min() > 0.02 - 1e-12
    assert len(kept) == np.count_nonzero(slack(every) > 0.02)
    np.testing.assert_allclose(np.sort(kept.margin), np.sort(every.margin[slack(every) > 0.02]), rtol=1e-12)


@pytest.mark.parametrize("side, median", [(1, 2.9), (-1, 2.6)])
@pytest.mark.parametrize("a, tilt", [(0, 1.03), (2, 0.61)])
def test_leverage_by_notional_has_the_closed_form(side: int, median: float, a: int, tilt: float) -> None:
    drawn = draw(population(rows=300_000, margin_cushion=0.0), (FLAT[0], FLAT[1] * 1e-9))
    here = (drawn.asset == a) & (np.sign(drawn.quantity) == side)
    leverage = (notional(drawn) / equity(drawn, START))[here]
    weight = (notional(drawn) * drawn.count)[here]
    off_by_one_row_a_stratum = 3 / len(leverage) + 0.006 * 3 / 96
    for level in (1.001, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0):
        above = 1 - ndtr(np.log(level / median / tilt) / 0.72)
        above_high = np.clip(np.log(125 / level) / np.log(125 / 20), 0, 1)
        expected = 0.994 * above + 0.006 * above_high
        assert weight[leverage >= level].sum() / weight.sum() == pytest.approx(expected, abs=off_by_one_row_a_stratum)
    assert leverage.min() == pytest.approx(1) and 120 < leverage.max() < 125


def test_a_tenth_of_the_longs_have_no_leverage_and_never_fall_to_maintenance() -> None:
    drawn = draw(population())
    share = triggered(drawn, -0.9999999) / 51e9
    assert 0.88 < share < 0.92


@pytest.mark.parametrize("fall", [0.01, 0.05, 0.1, 0.3])
def test_what_a_fall_triggers_has_the_closed_form(fall: float) -> None:
    """One tier of rate r: a long is past its trigger when 1/L <= fall + r (1 - fall)."""
    spec = population()
    drawn = draw(spec, FLAT)
    level = 1 / (fall + 0.005 * (1 - fall))
    expected = 0.0
    for asset, share in spec.asset_shares.items():
        median = 2.9 * spec.leverage.asset_tilt[asset]
        expected += share * 0.994 * (1 - ndtr(np.log(level / median) / 0.72))
    expected += 0.006 * np.clip(np.log(125 / level) / np.log(125 / 20), 0, 1)
    assert triggered(drawn, -fall, FLAT) == pytest.approx(51e9 * expected, rel=0.01)


@pytest.mark.parametrize("high", [False, True])
def test_entries_are_as_old_as_they_should_be(high: bool) -> None:
    """log(entry / now) is a scale mixture of normals: its variance is sigma^2 times the mean truncated age."""
    drawn = draw(population(high_leverage__notional_share=1.0 if high else 0.0), (FLAT[0], FLAT[1] * 1e-9))
    moves = np.log(drawn.entry_price / START[drawn.asset]) / VOLATILITY[drawn.asset]
    mean, longest = 3.0, 20.0
    age = mean - longest / np.expm1(longest / mean)
    weight = notional(drawn) * drawn.count
    assert np.average(moves, weights=weight) == pytest.approx(0, abs=0.01)
    assert np.average(moves**2, weights=weight) == pytest.approx(age / (20 if high else 1), rel=0.02)


def test_ages_are_a_truncated_exponential() -> None:
    spec = population()
    u = (np.arange(2000) + 0.5) / 2000
    stratum = spec._strata(VENUES, ASSETS, FLAT[1])[0]
    ages = spec._ages(stratum, u)
    assert ages.max() < 20
    assert kstest(ages, lambda x: expon.cdf(x, scale=3) / expon.cdf(20, scale=3)).statistic < 1e-3


def test_account_notional_is_lognormal_around_a_median_that_falls_with_leverage() -> None:
    drawn = draw(population(margin_cushion=0.0), (FLAT[0], FLAT[1] * 1e-9))
    size = notional(drawn)
    leverage = size / equity(drawn, START)
    standard = (np.log(size / 80e3) + 0.8 * np.log(leverage / 5)) / 1.5
    weight = size * drawn.count
    order = np.argsort(standard)
    cumulative = np.cumsum(weight[order]) / weight.sum()
    for quantile in (0.01, 0.1, 0.5, 0.9, 0.99):
        found = standard[order][np.searchsorted(cumulative, quantile)]
        assert found == pytest.approx(ndtri(quantile), abs=0.03)


def test_two_seeds_agree_on_leverage_buckets_and_on_what_a_fall_triggers() -> None:
    one, two = (draw(population(rows=300_000, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one.entry_price, two.entry_price)
    edges = np.array([1, 1.5, 2, 3, 5, 10, 20, 50, 126])
    shares = [
        np.histogram(notional(x) / equity(x, START), bins=edges, weights=notional(x) * x.count)[0] / 78e9
        for x in (one, two)
    ]
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.01)
    for move in (-0.05, -0.1, 0.05, 0.1):
        assert triggered(one, move) == pytest.approx(triggered(two, move), rel=0.02)


def test_more_rows_are_the_same_market() -> None:
    coarse, fine = draw(population(rows=20_000)), draw(population(rows=200_000))
    assert np.dot(notional(coarse), coarse.count) == pytest.approx(np.dot(notional(fine), fine.count), rel=1e-12)
    for move in (-0.05, -0.1, 0.05):
        assert triggered(coarse, move) == pytest.approx(triggered(fine, move), rel=0.03)


def test_the_same_seed_gives_the_same_rows() -> None:
    one, two = draw(population()), draw(population())
    np.testing.assert_array_equal(one.margin, two.margin)
    np.testing.assert_array_equal(one.count, two.count)


def test_every_coordinate_of_the_lattice_is_even_and_pairs_fill_the_square() -> None:
    points = np.array(_lattice(4096, (3, 5)))
    assert points.min() > 0 and points.max() < 1
    for i in range(4):
        counts = np.histogram(points[i], bins=64, range=(0, 1))[0]
        assert np.abs(counts - 64).max() <= 6  # independent draws: 20 or more
        for j in range(i):
            cells = np.histogram2d(points[i], points[j], bins=16, range=((0, 1), (0, 1)))[0]
            assert cells.min() >= 6 and cells.max() <= 30


def test_rows_are_shared_out_exactly_with_a_minimum() -> None:
    sizes = _allocate(1000, np.array([1e9, 1.0, 5e8, 0.3]))
    assert sizes.sum() == 1000
    assert sizes[1] == sizes[3] == 32
    assert sizes[0] - 32 == pytest.approx(2 * (sizes[2] - 32), abs=2)


def test_may_2021_holds_its_money() -> None:
    spec = population("2021-05")
    drawn = spec.draw(VENUES, ASSETS, START, VOLATILITY, *TIERED)
    held = notional(drawn) * drawn.count * np.sign(drawn.quantity)
    assert held[held > 0].sum() == pytest.approx(21.25e9, rel=1e-12)
    assert held[held < 0].sum() == pytest.approx(-11.25e9, rel=1e-12)
    assert set(drawn.asset.tolist()) == {ASSETS.index(name) for name in ("BTC", "ETH", "XRP")}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"venue_shares": {"binance": 0.5, "bybit": 0.3}}, "venue_shares sum to 0.8, expected 1"),
        ({"asset_shares": {"BTC": 1.0}}, "leverage.asset_tilt names 'ETH', expected an asset of asset_shares"),
        ({"leverage__minimum": 200.0}, "minimum is 200 and maximum is 100, expected minimum below maximum"),
        ({"leverage__medain": 3.0}, "leverage.medain is not a known key"),
        ({"rows": 10}, "rows is 10, expected"),
        ({"long_share": 1.5}, "long_share is 1.5, expected"),
    ],
)
def test_a_wrong_population_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        population(**changes)


def test_shares_must_fit_the_run() -> None:
    spec = population()
    with pytest.raises(InputError, match="venue_shares names 'okx', expected only binance, bybit"):
        spec.draw(VENUES[:2], ASSETS, START, VOLATILITY, *TIERED)
    with pytest.raises(InputError, match="asset_shares names 'SOL', expected only BTC, ETH"):
        spec.draw(VENUES, ASSETS[:2], START, VOLATILITY, *TIERED)
    rate = TIERED[1].copy()
    rate[2, 4] = 0.0
    with pytest.raises(InputError, match=r"asset_shares\.DOGE is 0\.03, expected 0 where venue 'okx' lists no market"):
        spec.draw(VENUES, ASSETS, START, VOLATILITY, TIERED[0], rate)
    with pytest.raises(InputError, match="every long in BTC at venue 'binance' is too close to maintenance"):
        draw(spec, (FLAT[0], np.full((3, 5, 1), 0.9999)))
