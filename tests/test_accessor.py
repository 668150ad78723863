"""`ds.liq`: the figures of the statistics under it, with labels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from conftest import Finished
from matplotlib.figure import Figure
from test_results import POOLS, VENUES, backstopped, synthetic

import stress
import stress.accessor
from stress import intervals, risk
from stress.results import by_path
from stress.spec import InputError


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    made = synthetic(paths=300, hours=24)
    made["status"][7] = 1
    made["log_weight"][:] = np.where(np.arange(300) % 2, 0.3, -0.4)
    return made


def test_totals_are_sums_in_64_bits_of_sound_paths(ds: xr.Dataset) -> None:
    found = ds.liq.total(by=["venue"])
    assert found.dims == ("path", "hour", "venue") and found.dtype == np.float64
    expected = ds["liquidation_volume"].isel(path=np.arange(300) != 7).sum(["asset", "side"], dtype=np.float64)
    np.testing.assert_allclose(found, expected)
    assert found.attrs["units"] == "USD"
    day = ds.liq.total(hours=24)
    np.testing.assert_allclose(day.values[:, 0], found.sum(["hour", "venue"]))
    assert ds.liq.total("fund_drawdown", by=["pool"]).dims == ("path", "pool")


def test_quantiles_are_those_of_the_summary(ds: xr.Dataset) -> None:
    s = risk.summary(ds)
    found = ds.liq.quantile([0.5, 0.99])
    for level in (0.5, 0.99):
        e = s.hourly.quantiles[level]
        assert found.sel(quantile=level).values.tolist() == [e.value, e.low, e.high]
    assert ds.liq.shortfall(0.99).values.tolist() == [[s.shortfall.value, s.shortfall.low, s.shortfall.high]]
    above = ds.liq.chance(risk.HOUR_THRESHOLD_USD)
    e = s.some_hour_above
    assert above.values.tolist() == [e.value, e.low, e.high] and above.attrs["units"] == "1"


def test_every_label_has_its_own_figures(ds: xr.Dataset) -> None:
    found = ds.liq.quantile([0.9, 0.99], "surplus", by=["hour", "pool"])
    assert found.dims == ("quantile", "bound", "hour", "pool") and list(found["pool"].values) == list(POOLS)
    kept = ds.isel(path=np.arange(300) != 7)
    weight = np.exp(kept["log_weight"].values)
    values = by_path(kept, "surplus", "hour", "pool")[:, 5, 2]
    e = intervals.quantile_intervals(values, [0.99], weight)[0.99]
    assert found.isel(hour=5, pool=2, quantile=1).values.tolist() == [e.value, e.low, e.high]
    by_venue = ds.liq.quantile(0.99, by=["venue"])
    assert by_venue.shape == (1, 3, len(VENUES))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda liq: liq.quantile(0.5, "index_low"), "index_low does not add up over asset"),
        (lambda liq: liq.total(by=["pool"]), "by has 'pool', expected dims of liquidation_volume"),
        (lambda liq: liq.total(hours=25), "hours is 25, expected 1 to the 24 hours"),
        (lambda liq: liq.total("fund_drawdown", by=["pool"], hours=2), "hours is 2, expected 1 to the 24 hours"),
        (lambda liq: liq.total("volume"), "keeps no volume"),
        (lambda liq: liq.explain(), "is not from a store"),
    ],
)
def test_mistakes_are_named(call, message: str, ds: xr.Dataset) -> None:
    with pytest.raises(InputError, match=message):
        call(ds.liq)


def test_pictures_are_drawn_on_the_axes_given() -> None:
    full = backstopped()
    for name in ("fan", "exceedance", "layers", "funds", "drawdown", "payers", "collateral"):
        ax = Figure().subplots()
        assert getattr(full.liq.plot, name)(ax) is ax
        assert ax.get_title(loc="left") and "[" in ax.get_xlabel()
    assert isinstance(full.liq.plot.overview(), Figure)


def test_levels_are_shares() -> None:
    for level in (99, 1.0, 0.0, -0.5, float("nan")):
        with pytest.raises(InputError, match="expected a share between 0 and 1"):
            backstopped().liq.quantile([0.5, level])
        with pytest.raises(InputError, match="expected a share between 0 and 1"):
            backstopped().liq.shortfall(level)


def test_an_opened_run_can_be_explained_and_sized(finished: Finished) -> None:
    ds = stress.open_run(finished.store)
    assert ds.liq.explain("worst").attrs["path"] == ds.liq.explain("worst").attrs["path"]
    ax = Figure().subplots()
    assert ds.liq.plot.cascade(ax, path=3) is ax and ax.get_title(loc="left").startswith("Path 3")
    assert set(ds.liq.funds()) == {"here/main"}
    assert ds.liq.table() == risk.summary_table(ds)


def test_datasets_that_are_no_runs_have_no_figures() -> None:
    with pytest.raises((AttributeError, RuntimeError)):
        xr.Dataset({"a": ("x", [1.0])}).liq.total()


OPENED = "from stress.run import run; from stress.results import dataset; dataset({}, {})"


@pytest.mark.parametrize("code", ["import xarray, stress", "import stress.accessor", OPENED])
def test_it_is_there_as_soon_as_there_are_datasets(code: str) -> None:
    check = f"{code}; import xarray as xr; print(hasattr(xr.Dataset, 'liq'))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
