"""Paired differences against plain statistics and repeated draws; who pays against sums; what is not compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT
from scipy import stats
from test_results import synthetic

from stress.common_base import changed, check_common_base
from stress.comparison import compare, measures, payments
from stress.comparison_plot import comparison_picture
from stress.comparison_table import number, print_comparison
from stress.config import load_config
from stress.console import console
from stress.digests import config_json
from stress.intervals import quantile, quantile_intervals
from stress.paired import paired_chance, paired_mean, paired_quantile
from stress.spec import InputError, RunError


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads(config_json(load_config(ROOT / "configs" / "quickstart.toml")))


def run(config: dict, paths: int = 300, name: str = "a", **changes: object) -> xr.Dataset:
    given = {**config, **changes, "name": name}
    return synthetic(paths, 6).assign_attrs(config=json.dumps(given), name=name, seed=given["seed"])


def test_paired_mean_is_a_paired_t_interval() -> None:
    rng = np.random.default_rng(0)
    change = rng.gamma(2.0, 1.0, 4000) - 1.9
    found = paired_mean(change)
    assert found.value == pytest.approx(change.mean())
    half = stats.t.ppf(0.975, 3999) * change.std(ddof=1) / np.sqrt(4000)
    assert (found.low, found.high) == pytest.approx((change.mean() - half, change.mean() + half))
    weight = np.repeat([1.0, 3.0], 2000)
    assert paired_mean(change, weight).value == pytest.approx(np.average(change, weights=weight))


def test_pairing_pays_where_paths_have_much_in_common() -> None:
    rng = np.random.default_rng(1)
    first = rng.lognormal(0, 1.5, (1000, 5))
    second = 1.1 * first + 0.01 * rng.standard_normal((1000, 5))
    paired = paired_quantile(first, second, 0.95)
    apart = [quantile_intervals(x, [0.95])[0.95] for x in (first, second)]
    assert paired.value == pytest.approx(quantile(second, [0.95])[0] - quantile(first, [0.95])[0])
    assert paired.low <= paired.value <= paired.high
    assert paired.high - paired.low < 0.3 * sum(e.high - e.low for e in apart)


@pytest.mark.parametrize("worse", [0.0, 0.05])
def test_intervals_of_paired_chances_cover_the_truth(worse: float) -> None:
    """300 experiments of 200 paths, of which a hundredth recovers and a share `worse` goes wrong."""
    rng, hits, same = np.random.default_rng(2), 0, 0
    for _ in range(300):
        u = rng.random(200)
        first, second = u < 0.3, (u < 0.29) | (u > 1 - worse)
        found = paired_chance(first, second)
        hits += found.low <= worse - 0.01 <= found.high
        same += found.low == found.high
    assert hits >= 285
    assert same == 0
    never = np.zeros(200, bool)
    assert paired_chance(never, never).high == pytest.approx(1 - 0.0125 ** (1 / 200))


def test_differences_of_every_measure_agree_with_plain_sums(config: dict) -> None:
    first, other = run(config), run(config, name="b")
    other["liquidation_volume"][:] *= 0.75
    other["adl_volume"][:100] = 0
    found = compare({"a": first, "b": other}).others[0]
    by_name = {row.name: row for row in found.differences}
    total = first["liquidation_volume"].astype(float).sum(["hour", "venue", "asset", "side"])
    assert by_name["liquidated"].base == pytest.approx(float(total.mean()))
    assert by_name["liquidated"].change.value == pytest.approx(float(-0.25 * total.mean()))
    assert by_name["liquidated"].differs == pytest.approx(1)
    adl = first["adl_volume"].astype(float).sum(["hour", "venue", "asset"]) > 0
    assert by_name["chance of ADL"].change.value == pytest.approx(-float(adl[:100].sum()) / 300)
    quiet = by_name["largest fall of funds"]
    assert (quiet.differs, quiet.change.low, quiet.change.high) == (0, 0, 0)
    assert len(found.differences) == len(measures(first, ranked=True))


def test_rankings_differ_in_whom_they_hit(config: dict) -> None:
    first, other = run(config), run(config, name="b")
    first["adl_top_share"][:] = 0.1
    other["adl_top_share"][:] = 0.3
    other["adl_top_share"].loc[{"venue": "okx"}] = np.nan  # Closed at the mark: nobody loses.
    other["adl_accounts"][:] *= 2
    by_name = {row.name: row for row in compare({"a": first, "b": other}).others[0].differences}
    loss = first["adl_haircut"].astype(float).sum(["hour", "asset"]).mean("path")
    change = 0.2 * loss.sum() - 0.3 * loss.sel(venue="okx")
    assert by_name["ADL loss of the top 1 % of winners"].change.value == pytest.approx(float(change))
    accounts = first["adl_accounts"].astype(float).sum(["hour", "venue"]).mean()
    assert by_name["accounts deleveraged"].change.value == pytest.approx(float(accounts))
    for ds in (first, other):
        ds["adl_volume"][:] = 0
    assert "accounts deleveraged" not in [row.name for row in compare({"a": first, "b": other}).others[0].differences]


def test_runs_of_different_lengths_and_with_failures_meet_on_common_paths(config: dict) -> None:
    first, other = run(config), run(config, name="b").isel(path=slice(200))
    first["status"][7] = other["status"][9] = 1
    first["liquidation_volume"][7] = np.nan
    found = compare({"a": first, "b": other})
    assert (found.paths, found.failed) == (198, 2)
    assert found.others[0].differences[0].differs == 0
    first["status"][:] = 1
    with pytest.raises(RunError, match="each of 200 paths failed"):
        compare({"a": first, "b": other})


def test_who_pays_is_what_the_outputs_say(config: dict) -> None:
    ds = run(config)
    ds["surplus"][:] = 2.0
    ds["adl_haircut"][:] = 0.5
    ds["absorbed_volume"].loc[{"layer": "auction"}] = 100.0
    ds["fund_equity"][:, -1, :] = [1.1e9, 0.4e9, 0.31e9]
    paid = {row.name: row.values for row in payments(ds)}
    assert set(map(len, paid.values())) == {300}
    hours, markets = 6, 3 * 5
    assert paid["closed traders, to funds"] == pytest.approx(2.0 * hours * 3)
    assert paid["winners, by ADL"] == pytest.approx(0.5 * hours * markets)
    # A discount of 100 bp in every market of the quickstart.
    assert paid["closed traders, to makers"] == pytest.approx(100.0 * 0.01 * hours * markets)
    assert paid["market makers"] == pytest.approx(-paid["closed traders, to makers"])
    assert paid["insurance funds"] == pytest.approx(1.9e9 - 1.81e9)


OTHER_BASES = {
    "seed": ({"seed": 2}, r"b: seed is 2, expected 1 as in a: the two share no common base"),
    "horizon": ({"horizon_hours": 12}, r"b: horizon_hours is 12, expected 24"),
    "assets": ({"assets": {"BTC": {"daily_volatility": 0.02}}}, r"BTC\.daily_volatility is 0\.02, expected 0.026"),
    "step": ({"step_seconds": 10}, r"b: step_seconds is 10, expected 60"),
    "shock": ({"shock": {"kind": "gbm"}}, r"b: shock is of kind 'gbm', expected of kind 'merton'"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_BASES)
def test_another_base_is_refused(name: str, config: dict) -> None:
    changes, words = OTHER_BASES[name]
    with pytest.raises(InputError, match=words):
        compare({"a": run(config), "b": run(config, name="b", **changes)})


def test_another_population_or_other_bytes_are_refused_and_a_cap_is_not(config: dict) -> None:
    def portfolio(**changes: object) -> dict:
        return {**config["portfolio"], **changes}

    with pytest.raises(InputError, match=r"portfolio\.block_usd is 0, expected 9000000000\.0"):
        check_common_base(run(config), run(config, name="b", portfolio=portfolio(block_usd=0)))
    capped = run(config, name="b", portfolio=portfolio(leverage_cap={"maximum": 10.0}))
    check_common_base(run(config), capped)
    assert changed(run(config), capped) == ["portfolio.leverage_cap"]
    files = [run(config, name=name).assign_attrs(inputs_sha256={"positions": name * 4}) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"b: portfolio\.positions is 'bbbb', expected 'aaaa'"):
        check_common_base(*files)


def test_one_run_alone_is_not_compared(config: dict) -> None:
    with pytest.raises(InputError, match="a: is one run, expected at least two"):
        compare({"a": run(config)})


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.1805e10, "usd", "11,805"), (-3.52e7, "usd", "-35.2"), (4e5, "usd", "0.400"), (12.0, "usd", "0"),
     (0.1412, "share", "14.1"), (0.0, "share", "0"), (790006.4, "accounts", "790,006")],
)  # fmt: skip
def test_numbers_have_three_digits(value, unit, text) -> None:
    assert number(value, unit) == text
    assert number(abs(value), unit, signed=True) == (text if text == "0" else f"+{text.lstrip('-')}")


def test_one_path_has_differences_without_intervals(config: dict, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = run(config, paths=1), run(config, paths=1, name="b")
    other["liquidation_volume"][:] *= 0.75
    found = compare({"a": first, "b": other})
    print_comparison(found, console())
    assert "unknown: few paths" in capsys.readouterr().out
    assert comparison_picture(found).axes
