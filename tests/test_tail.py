"""Tails and fund sizes of runs: what is read, which threshold, what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_results import FUNDS_USD, POOLS, VENUES, synthetic

from stress import plots_tail, tail
from stress.drawing import save
from stress.fund_size import fund_sizes, losses
from stress.intervals import Estimate, expected_shortfall, quantile
from stress.results import by_path
from stress.spec import InputError


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    pools = [[{"name": "main", "equity_usd": size, "markets": "all"}] for size in FUNDS_USD]
    config = {"venues": {venue: {"pools": of} for venue, of in zip(VENUES, pools, strict=True)}}
    return synthetic(paths=1000, hours=30).assign_attrs(config=json.dumps(config))


@pytest.fixture(scope="module")
def found(ds) -> tail.Tail:
    return tail.tail(ds, levels=(0.95, 0.999))


def test_one_value_a_path_is_taken(ds) -> None:
    volume = by_path(ds, "liquidation_volume", "hour")
    np.testing.assert_allclose(tail.values_of(ds, "hour")[1], volume.max(axis=1))
    days = [volume[:, i : i + 24].sum(axis=1) for i in range(7)]
    what, values = tail.values_of(ds, "day")
    np.testing.assert_allclose(values, np.max(days, axis=0))
    assert what == "liquidations in the largest 24 hours of a run"
    np.testing.assert_array_equal(tail.values_of(ds, "drawdown", POOLS[1])[1], ds["fund_drawdown"].values[:, 1])


def test_levels_come_from_the_paths_and_from_the_tail(ds, found) -> None:
    at = found.levels[0.999]
    assert at.seen.value == quantile(found.values, [0.999])[0] and at.seen.exact
    assert at.seen_shortfall.value == expected_shortfall(found.values, 0.999)
    assert at.fitted is not None and at.fitted.low < at.fitted.value < at.fitted.high
    assert at.fitted_shortfall is not None and at.fitted_shortfall.value > at.fitted.value
    assert found.exceedance(at.fitted.value).value == pytest.approx(0.001)


def test_levels_below_the_threshold_have_no_fitted_value(ds, found) -> None:
    high = tail.tail(ds, threshold=float(np.quantile(found.values, 0.94)), levels=(0.9, 0.95))
    assert high.reason == "as given"
    assert high.levels[0.9].fitted is None and high.levels[0.95].fitted is not None


def test_thresholds_leave_fifty_to_a_tenth_above_them() -> None:
    values = np.random.default_rng(1).lognormal(size=2000)
    above = [int(np.sum(values > place)) for place in tail.thresholds(values)]
    assert above == sorted(above) and (above[0], above[-1]) == (50, 200)
    assert tail.thresholds(np.repeat([0.0, 1.0], [900, 100])) == [0.0]
    assert tail.thresholds(np.ones(1000)) == tail.thresholds(np.arange(50.0)) == []


def test_the_lowest_threshold_that_fits_is_chosen() -> None:
    """Of a Pareto tail all thresholds fit; of two that meet at the 5 % quantile those above it."""
    rng = np.random.default_rng(2)
    pure = tail.fitted("x", rng.pareto(3, 4000), np.ones(4000))
    assert pure.chosen.threshold < np.quantile(pure.values, 0.93)
    assert pure.chosen.shape.low < 1 / 3 < pure.chosen.shape.high
    body, far = rng.uniform(0, 1, 3800), 1 + 50 * rng.pareto(3, 200)
    joined = tail.fitted("x", np.concatenate([body, far]), np.ones(4000))
    assert joined.chosen.threshold > 0.9
    assert "lowest that fits" in joined.reason


def test_a_threshold_needs_a_fit_and_the_shape_of_those_above_it() -> None:
    """The third has a shape that is not in the first's interval, the fifth does not fit."""
    made = [(0.5, 0.3, 0.45), (0.5, 0.4, 0.5), (0.5, 0.5, 0.6), (0.1, 0.45, 0.5), (0.09, 0.4, 0.5), (0.5, 0.4, 0.5)]
    candidates: Any = [SimpleNamespace(test=p, shape=Estimate(shape, 0.1, high)) for p, shape, high in made]
    assert tail.choose(candidates)[0] is candidates[3]
    assert tail.choose(candidates[:3])[0] is candidates[1]
    assert tail.choose(candidates[4:])[0] is candidates[4]
    assert "do not rely" in tail.choose(candidates[4:])[1]


def test_a_tail_that_nothing_fits_is_called_one() -> None:
    values = np.concatenate([np.zeros(900), np.repeat([1.0, 2.0, 3.0], [40, 30, 30])])
    assert "do not rely on the tail" in tail.fitted("x", values, np.ones(1000)).reason


@pytest.mark.parametrize(("shape", "open_end"), [(0.2, False), (1.4, True)])
def test_a_mean_of_a_tail_without_variance_has_no_upper_end(shape, open_end) -> None:
    """Falls of funds have a shape of 1.4: the interval by the scatter of 512 paths held the mean in 79 % of samples."""
    values = np.random.default_rng(4).pareto(1 / shape, 8000)
    seen = tail.fitted("x", values, np.ones(8000), levels=(0.98,)).levels[0.98].seen_shortfall
    assert np.isinf(seen.high) == open_end and seen.low < seen.value


def test_weights_change_the_tail_and_leave_out_the_test(ds) -> None:
    score = np.random.default_rng(3).normal(size=1000)
    weighed = tail.tail(ds.assign(log_weight=("path", 0.3 * score)), levels=(0.99,))
    assert np.isnan(weighed.chosen.test) and not weighed.levels[0.99].seen.exact
    assert weighed.chosen.fit.stretch is not None


def test_mistakes_are_refused_in_one_line(ds, found) -> None:
    far = float(np.sort(found.values)[-12])
    few = r"threshold is .* USD, above which lie 11 of 1000 paths \(.*\), expected at least 50. Lower it to "
    with pytest.raises(InputError, match=few):
        tail.tail(ds, threshold=far)
    with pytest.raises(InputError, match=r"above which lie 39 of 40 paths .* expected at least 50. Run more paths"):
        tail.tail(ds.isel(path=slice(0, 40)))
    with pytest.raises(InputError, match="pool is missing, expected one of the run's: binance/main, "):
        tail.tail(ds, "drawdown")
    with pytest.raises(InputError, match="pool is 'x', expected one of the run's"):
        tail.tail(ds, "drawdown", pool="x")
    with pytest.raises(InputError, match="pool is 'binance/main' with liquidations of the largest hour, expected none"):
        tail.tail(ds, pool="binance/main")


def test_paths_needed_for_an_upper_end() -> None:
    assert tail.paths_needed(0.99) == 368
    assert tail.paths_needed(0.9997) == 12_295


def test_pictures_of_a_tail_show_its_figures(found, tmp_path) -> None:
    fig = plots_tail.tail_figure(found, "synthetic")
    assert len(fig.axes) == 3 and all("[" in ax.get_xlabel() for ax in fig.axes)
    lines = {str(line.get_label()): line for line in fig.axes[0].lines}
    x, y = (np.asarray(lines["fitted tail"].get_data()[i]) for i in (0, 1))
    assert y[10] == pytest.approx(found.exceedance(1e6 * x[10]).value)
    x, y = (np.asarray(lines["paths"].get_data()[i]) for i in (0, 1))
    assert y[5] == pytest.approx(np.mean(found.values > 1e6 * x[5] * (1 + 1e-12)))
    assert "99.9 % are at most" in fig.get_suptitle()
    for file in save(fig, tmp_path / "tail"):
        assert file.stat().st_size > 1000


def test_a_fund_needs_what_it_and_those_who_stepped_in_lost() -> None:
    """Equity of 100 falls to 40, recovers to 90, falls to 0 while 30 is socialised, and then to -20."""
    low = np.array([[[40.0], [90], [0], [-20]]])
    socialised = np.array([[[0.0], [0], [30], [0]]])
    dims = "path", "hour", "pool"
    ds = xr.Dataset({"fund_low": (dims, low), "socialised_loss": (dims, socialised)})
    assert losses(ds, np.array([100.0])) == 150
    assert losses(ds.isel(hour=[0, 1]), np.array([100.0])) == 60
    assert losses(ds.isel(hour=[1]), np.array([80.0])) == 0


def test_fund_sizes_say_how_they_can_be_read(ds) -> None:
    gone = np.full((1000, 3), np.nan)
    gone[:30, 0], gone[:2, 1] = 4, 7
    ds = ds.copy(deep=True)
    ds["adl_haircut"][:, 3, 0, 1] = 5e6
    sizes = fund_sizes(ds.assign(fund_exhausted_hour=(("path", "pool"), gone)))
    first, second, third = (sizes[name] for name in POOLS)
    assert [first.levels[q].reading for q in (0.99, 0.9997)] == ["lower bound", "lower bound"]
    assert [second.levels[q].reading for q in (0.99, 0.999)] == ["safe side", "undecided"]
    assert [third.levels[q].reading for q in (0.99, 0.9997)] == ["safe side", "undecided"]
    assert first.exhausted.value == pytest.approx(0.03) and first.size == FUNDS_USD[0]
    at = first.levels[0.99]
    assert at.seen.value == quantile(losses(ds, FUNDS_USD)[:, 0], [0.99])[0]
    assert at.with_adl.value == pytest.approx(at.seen.value + 5e6)
    assert second.levels[0.99].with_adl.value == second.levels[0.99].seen.value


def test_haircuts_go_to_the_fund_of_their_market(ds) -> None:
    config = json.loads(ds.attrs["config"])
    config["venues"]["binance"]["pools"][0]["markets"] = ["BTC"]
    made = ds.copy(deep=True).assign_attrs(config=json.dumps(config))
    made["adl_haircut"][:, 3, 0, 0], made["adl_haircut"][:, 3, 0, 1] = 1e6, 5e6
    at = fund_sizes(made, [0.99])["binance/main"].levels[0.99]
    assert at.with_adl.value == pytest.approx(at.seen.value + 1e6)


def test_a_run_without_its_config_is_refused(ds) -> None:
    with pytest.raises(InputError, match="carries no config"):
        fund_sizes(ds.drop_attrs())
