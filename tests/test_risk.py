"""Figures of a run against plain sums."""

from __future__ import annotations

import time

import numpy as np
import pytest
import xarray as xr
from test_results import backstopped, synthetic

from stress import intervals, risk
from stress.results import by_path, weights
from stress.spec import InputError, RunError


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
    tilted = paths.isel(path=chosen).assign(log_weight=("path", np.log(len(chosen) / 1000 / (1 + 2 * jumped[chosen]))))
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
    ds = synthetic(paths=80, hours=2).assign(log_weight=("path", np.where(np.arange(80) < 30, 1.0, -5000.0)))
    assert (weights(ds)[:30] == np.e).all()
    s = risk.summary(ds)
    assert s.effective_paths == pytest.approx(30)
    assert all(np.isfinite(e.value) for e in s.hourly.quantiles.values())


def test_weights_that_are_worth_too_little_are_refused() -> None:
    for paths, heavy in ((80, 3), (1000, 40)):
        ds = synthetic(paths=paths, hours=2)
        ds = ds.assign(log_weight=("path", np.where(np.arange(paths) < heavy, 1.0, -5000.0)))
        with pytest.raises(InputError, match=rf"{paths:,} paths are worth {heavy} by .* expected .* Leave more to the"):
            risk.summary(ds)


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
    assert "composition" not in {row.group for row in risk.summary_table(s)}
    assert s.some_hour_above.value == s.pools["okx/main"].exhausted.value == 0
    assert s.some_hour_above.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert all(row.value for row in risk.summary_table(s))


def shown(rows: list[risk.Row], group: str) -> dict[str, str]:
    """Value of each quantity of a group."""
    return {row.quantity: row.value for row in rows if row.group == group}


def test_mechanisms_have_rows_where_they_do_something() -> None:
    plain, ds = synthetic(paths=20, hours=3), backstopped()
    plain = risk.summary_table(plain.assign(adl_volume=0 * plain["adl_volume"]))
    assert not any(row.group.startswith(("vault at", "winners at", "sold at")) for row in plain)
    rows = risk.summary_table(ds)
    assert {row.group for row in rows if row.group.startswith(("vault at", "winners at", "sold at"))} == {
        "vault at okx", "winners at bybit", "winners at okx", "sold at binance",
    }  # fmt: skip
    for row in rows:
        assert "nan" not in row.value + row.interval


def test_a_vault_shows_profit_and_lowest_equity() -> None:
    vault = shown(risk.summary_table(backstopped()), "vault at okx")
    assert (vault["profit, mean"], vault["profit, smallest"]) == ("-3.50 M USD", "-8.00 M USD")
    assert (vault["profit, median of runs"], vault["profit, 1 % of runs"]) == ("-4.00 M USD", "-8.00 M USD")
    assert vault["lowest equity, median of runs"] == "2.50 M USD"
    assert (vault["chance of a loss"], vault["chance of exhaustion"]) == ("80.0 %", "20.0 %")


def test_who_pays_for_deleveraging_is_of_runs_with_it_and_their_worst_hour() -> None:
    """At bybit four of ten paths, 1 and 3 M USD in two hours; what it keeps is not known there."""
    rows = risk.summary_table(backstopped())
    assert shown(rows, "winners at bybit") == {
        "largest share of an open interest": "15.0 %",
        "loss borne by the top 1 % of winners": "15.0 %",
        "loss borne by the top 10 % of winners": "30.0 %",
    }
    okx = shown(rows, "winners at okx")
    assert okx["profit left to the top winner / all losses"] == "0.60 x"
    assert okx["profit left to the top winner / largest loss"] == "12.0 x"
    adl = shown(rows, "ADL at bybit")
    assert (adl["winners' loss, mean"], adl["less losers' need, mean"]) == ("1.60 M USD", "-800 k USD")
    assert "winners' loss, mean" not in shown(rows, "ADL at binance")


def test_deleveraging_at_the_mark_costs_winners_nothing() -> None:
    ds = backstopped()
    bybit = ds["venue"] == "bybit"
    for name in ("adl_haircut", "adl_top_share", "adl_top_10_share"):
        ds[name] = ds[name].where(~bybit, 0 if name == "adl_haircut" else np.nan)
    rows = risk.summary_table(ds)
    assert shown(rows, "winners at bybit") == {"largest share of an open interest": "15.0 %"}
    adl = shown(rows, "ADL at bybit")
    assert (adl["winners' loss, mean"], adl["less losers' need, mean"]) == ("0 USD", "-800 k USD")


def test_collateral_sold_is_by_venue_with_the_share_of_each_token() -> None:
    sold = shown(risk.summary_table(backstopped()), "sold at binance")
    assert sold["volume, mean"] == "4.00 M USD"
    assert (sold["share of ETH"], sold["share of DOGE"]) == ("25.0 %", "75.0 %")
    assert "share of BTC" not in sold


def test_a_fund_that_never_has_money_is_not_exhausted() -> None:
    ds = backstopped()
    assert not np.isnan(ds["fund_exhausted_hour"].sel(pool="okx/main")).any()
    s = risk.summary(ds)
    assert [pool.funded for pool in s.pools.values()] == [True, True, False]
    okx = shown(risk.summary_table(s), "fund okx/main")
    assert set(okx) == {"socialised loss, mean", "socialised loss, 99 % of runs", "chance of a socialised loss"}
    assert okx["socialised loss, mean"] == "300 M USD"
    quiet = risk.summary_table(ds.assign(socialised_loss=0 * ds["socialised_loss"]))
    assert not shown(quiet, "fund okx/main")
    assert "chance of exhaustion" in shown(quiet, "fund bybit/main")


def test_a_fund_that_lost_all_within_the_first_hour_had_money() -> None:
    ds = backstopped()
    ds["fund_equity"][..., 0], ds["deficit"][..., 0] = 0, 4e8
    ds["fund_drawdown"][:, 0], ds["fund_exhausted_hour"][:, 0] = 1.2e9, 0
    assert shown(risk.summary_table(ds), "fund binance/main")["chance of exhaustion"] == "100 %"


def test_tokens_without_a_market_have_no_share() -> None:
    ds = backstopped()
    assert list(risk.summary(ds).asset_shares) == ["BTC", "ETH", "SOL", "XRP"]
    ds["open_interest"].loc[{"asset": "DOGE"}] = 5
    assert shown(risk.summary_table(ds), "composition")["DOGE"] == "0 %"


def test_the_same_run_prints_the_same() -> None:
    ds = synthetic(paths=100, hours=5)
    first = risk.summary_table(ds)
    intervals._critical.cache_clear()
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
    [
        (601e6, "601 M USD"),
        (1.57e9, "1.57 bn USD"),
        (0, "0 USD"),
        (999.7e6, "1.00 bn USD"),
        (12345, "12.3 k USD"),
        (-0.2, "0 USD"),
    ],
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


def test_a_chance_under_importance_sampling_says_what_it_rests_on_or_that_it_is_not_known() -> None:
    ds = synthetic(paths=400, hours=2)
    exhausted = np.full((400, 3), np.nan)
    exhausted[:40, 0], exhausted[:3, 1] = 0.0, 0.0
    weight = np.where(np.arange(400) < 200, 0.01, 1.99)
    ds = ds.assign(
        fund_exhausted_hour=(("path", "pool"), exhausted), log_weight=("path", np.log(weight)),
        fund_drawdown=ds["fund_drawdown"] + 1.0,
    )  # fmt: skip
    rows = risk.summary_table(ds)
    first, second = (str(name) for name in ds["pool"].values[:2])
    found = shown(rows, f"fund {first}")
    assert found["chance of exhaustion"] == "0.1 %"
    assert found["chance of exhaustion: rests on"] == "40 paths"
    (row,) = (row for row in rows if row.group == f"fund {second}" and row.quantity == "chance of exhaustion")
    assert (row.value, row.interval) == ("not known", "3.0 effective paths, 10 needed: tilt to it")
