"""Pictures: what they show, that they are the same twice, and that odd runs can be drawn."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from test_results import POOLS, backstopped, synthetic

from stress import plots, risk
from stress.drawing import save
from stress.results import by_path
from stress.spec import InputError, RunError
from stress.variables import LAYERS, WITH_VAULT

PANELS = (plots.hourly_volume, plots.exceedance, plots.fund_equity, plots.absorption)


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return synthetic(paths=300, hours=24)


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_stands_alone_and_labels_its_units(ds, panel) -> None:
    ax = panel(ds)
    assert isinstance(ax.figure, Figure)
    assert "[" in ax.get_xlabel() and ax.get_title(loc="left")
    assert "[" in ax.get_ylabel() or [label.get_text() for label in ax.get_yticklabels()] == list(LAYERS)
    assert ax.get_legend() is not None


def test_panels_draw_on_the_axes_they_are_given(ds) -> None:
    ax = Figure().subplots()
    assert plots.exceedance(ds, ax) is ax


def test_fan_shows_the_quantiles_of_each_hour(ds) -> None:
    ax = plots.hourly_volume(ds)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    volume = by_path(ds, "liquidation_volume", "hour") / 1e6
    for label, level in (("median", 0.5), ("99 %", 0.99)):
        expected = np.quantile(volume, level, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(drawn[label][:-1], expected)


def test_bars_are_the_intervals_of_means(ds) -> None:
    taken = by_path(ds, "absorbed_volume", "layer")
    ax = plots.absorption(ds)
    bars = [np.asarray(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 5]
    book = taken[:, 0] / 1e6
    found = stats.t.interval(0.95, len(book) - 1, book.mean(), stats.sem(book))
    np.testing.assert_allclose(bars[0], found, rtol=1e-6)
    assert "95 % interval" in ax.get_legend_handles_labels()[1]


def test_what_a_run_has_none_of_can_be_drawn(ds) -> None:
    for panel in (plots.collateral_sold, plots.adl_payers):
        assert [label.get_text() for label in panel(ds).get_yticklabels()] == ["none"]
    with pytest.raises(InputError, match="the run ends with its last hour"):
        plots.recovery(ds)


def test_exceedance_curve_marks_the_headline_hour(ds) -> None:
    ax = plots.exceedance(ds)
    curve, line = ax.lines[:2]
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    volume = by_path(ds, "liquidation_volume", "hour").ravel()
    np.testing.assert_allclose(y[10], (volume > x[10] * 1e6).mean())
    assert np.asarray(line.get_xdata())[0] == risk.HOUR_THRESHOLD_USD / 1e6
    share = risk.percent((volume > risk.HOUR_THRESHOLD_USD).mean())
    assert any(share in text.get_text() for text in ax.texts)


def test_funds_are_drawn_by_name(ds) -> None:
    ax = plots.fund_equity(ds)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    median = np.quantile(ds["fund_equity"].values[:, :, 1], 0.5, axis=0, method="inverted_cdf") / 1e6
    np.testing.assert_allclose(drawn[POOLS[1]], median)


def test_absorption_writes_means_beside_the_worst(ds) -> None:
    texts = [text.get_text() for text in plots.absorption(ds).texts]
    taken = ds["absorbed_volume"].astype(float).sum(["hour", "venue", "asset"]).values
    worst = taken[np.argsort(taken.sum(axis=1))[-4:]]
    assert texts[0].startswith(risk.usd(taken[:, 0].mean()))
    assert texts[len(LAYERS)].startswith(risk.usd(worst[:, 0].mean()))
    assert texts[LAYERS.index("remainder")] == "none"


def test_title_says_what_the_figures_say(ds) -> None:
    s = risk.summary(ds)
    title = plots.takeaway(ds)
    assert risk.usd(s.hourly.quantiles[0.99].value) in title
    assert f"{risk.percent(s.some_hour_above.value)} of 24-hour runs" in title
    assert "no fund is exhausted" in title
    emptied = ds.copy(deep=True)
    emptied["fund_exhausted_hour"][:3, 2] = 5
    assert "a fund is exhausted in 1.0 % of runs" in plots.takeaway(emptied)


def titles(fig: Figure) -> list[str]:
    """Of the panels that are drawn."""
    return [ax.get_title(loc="left") for ax in fig.axes if ax.axison]


def entries(ax: Axes) -> list[str]:
    """Of the legend."""
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def rows(ax: Axes) -> list[str]:
    """Names at the left."""
    return [label.get_text() for label in ax.get_yticklabels()]


def test_a_vault_is_a_layer_and_is_drawn_beside_the_funds_that_have_money() -> None:
    ds = backstopped()
    ax = plots.absorption(ds)
    assert rows(ax) == list(WITH_VAULT)
    assert ax.texts[WITH_VAULT.index("vault")].get_text().startswith("15.0 M USD")
    assert "mean of the 1 % worst for the funds and vaults" in entries(ax)
    ax = plots.fund_equity(ds)
    assert ax.get_title(loc="left") == "Equity of the insurance funds and vaults"
    assert entries(ax) == ["binance/main", "bybit/main", "okx/vault", "1 to 99 %", "lowest"]
    drawn = {str(line.get_label()): line for line in ax.lines}
    np.testing.assert_allclose(np.asarray(drawn["okx/vault"].get_ydata()), [6.5, 2.5, 2.5])
    assert len({drawn[name].get_color() for name in entries(ax)[:3]}) == 3


def test_the_worst_paths_are_those_on_which_funds_and_vaults_lose_most() -> None:
    """The vault loses most on the first path; on the last it gains, and no fund falls but for the rounding of none."""
    ds = backstopped()
    ds["fund_drawdown"][:, :2] = 0
    ds["fund_drawdown"][-1, 2] = 100
    ds["absorbed_volume"][:] = 0
    ds["absorbed_volume"][0, 0, 0, 0, 0], ds["absorbed_volume"][-1, 0, 0, 0, 0] = 5e6, 9e6
    worst = plots.absorption(ds).texts[len(WITH_VAULT)].get_text()
    assert worst.startswith("5.00 M USD")
    ds["vault_profit"][:] = 0
    assert entries(plots.absorption(ds)) == ["mean of all paths", "95 % interval"]


def test_panels_for_deleveraging_and_collateral_come_where_there_is_some(ds) -> None:
    more = ["Who pays for auto-deleveraging (ADL)", "Collateral sold in the spot market, per run"]
    assert len(titles(plots.overview(ds))) == 4
    full = backstopped()
    assert titles(plots.overview(full))[4:] == more
    assert titles(plots.overview(full.assign(collateral_sold=0 * full["collateral_sold"])))[4:] == more[:1]
    sold, paid = plots.collateral_sold(full), plots.adl_payers(full)
    assert rows(sold) == ["ETH", "DOGE"]
    assert [text.get_text() for text in sold.texts[:2]] == ["1.00 M USD (25.0 %)", "3.00 M USD (75.0 %)"]
    assert rows(paid) == ["bybit", "okx"]
    assert [text.get_text() for text in paid.texts] == ["15.0 %", "10.0 %", "30.0 %", "20.0 %"]
    bybit = full["venue"] == "bybit"
    assert rows(
        plots.adl_payers(full.assign({n: full[n].where(~bybit) for n in ("adl_top_share", "adl_top_10_share")}))
    ) == ["okx"]
    assert "[%]" in paid.get_xlabel() and "[M USD]" in sold.get_xlabel()


def test_the_title_speaks_of_vaults_and_not_of_funds_without_money() -> None:
    ds = backstopped()
    assert plots.takeaway(ds).endswith("and a vault is exhausted in 20.0 % of runs.")
    both = ds.copy(deep=True)
    both["fund_exhausted_hour"][0, 0] = 1
    assert plots.takeaway(both).endswith("and a fund is exhausted in 10.0 %, a vault in 20.0 % of runs.")
    rich = ds.assign(vault_equity=ds["vault_equity"] + 1e9)
    assert plots.takeaway(rich).endswith("and no fund and no vault is exhausted.")
    none = ds.isel(pool=[2], venue=[0])
    assert plots.takeaway(none).endswith("and there is no insurance fund.")
    assert [text.get_text() for text in plots.fund_equity(none).texts] == ["no fund has money"]


@pytest.mark.parametrize("names", [("a/b", "c/d"), ("binance/main", "bybit/main", "hyperliquid/vault")])
def test_legends_stay_above_their_own_panel(ds, names) -> None:
    """As wide as in the overview."""
    fig = plots.overview(ds.isel(pool=slice(len(names))).assign_coords(pool=list(names)))
    fig.draw_without_rendering()
    for ax in fig.axes:
        legend = ax.get_legend()
        assert legend is not None
        assert legend.get_window_extent().x1 <= ax.get_window_extent().x1


@pytest.mark.parametrize("largest", [1e6, 500e6, 50e9])
def test_words_at_the_headline_hour_stay_in_the_panel(ds, largest) -> None:
    scale = largest / by_path(ds, "liquidation_volume", "hour").max()
    ax = plots.exceedance(ds.assign(liquidation_volume=ds["liquidation_volume"] * scale))
    ax.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    assert ax.texts[0].get_window_extent().x1 <= ax.get_window_extent().x1


def test_the_caption_names_run_seed_and_version(ds) -> None:
    fig = plots.overview(ds.assign_attrs(seed=5, liqstress_version="1.2.3"))
    assert fig.texts[-1].get_text() == "synthetic | 300 paths of 24 h | seed 5 | version 1.2.3"


@pytest.mark.parametrize("hours", [1, 2, 30])
def test_short_and_quiet_runs_can_be_drawn(tmp_path, hours) -> None:
    ds = synthetic(paths=20, hours=hours)
    for case in (ds, ds.map(np.zeros_like), ds.isel(path=slice(0, 1))):
        save(plots.overview(case), tmp_path / "a")


def test_failed_paths_are_named_and_not_drawn(ds) -> None:
    broken = ds.copy(deep=True)
    broken["liquidation_volume"][7] = np.nan
    broken["status"][7] = 3
    fig = plots.overview(broken)
    assert any("1 failed paths left out" in text.get_text() for text in fig.texts)
    assert fig.get_suptitle() == plots.takeaway(ds.drop_sel(path=7))
    with pytest.raises(RunError, match="all 300 paths failed"):
        plots.overview(ds.assign(status=ds["status"] + 1))


def test_same_figure_same_bytes(tmp_path, ds) -> None:
    digests = []
    for name in ("one.png", "two.svg"):
        files = save(plots.overview(ds), tmp_path / name)
        assert [file.suffix for file in files] == [".png", ".svg"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()


def test_names_with_dots_keep_them(tmp_path, ds) -> None:
    png, svg = save(plots.hourly_volume(ds).figure.get_figure(root=True), tmp_path / "run.v1.2")
    assert (png.name, svg.name) == ("run.v1.2.png", "run.v1.2.svg")


def test_no_global_state_of_matplotlib_is_used() -> None:
    code = "import sys, stress.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0
