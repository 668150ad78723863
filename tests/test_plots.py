"""Pictures: what they show, that they are the same twice, and that odd runs can be drawn."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from test_results import POOLS, synthetic

from stress import plots, risk
from stress.results import LAYERS, by_path
from stress.spec import RunError

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


@pytest.mark.parametrize("hours", [1, 2, 30])
def test_short_and_quiet_runs_can_be_drawn(tmp_path, hours) -> None:
    ds = synthetic(paths=20, hours=hours)
    for case in (ds, ds.map(np.zeros_like), ds.isel(path=slice(0, 1))):
        plots.save(plots.overview(case), tmp_path / "a")


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
        files = plots.save(plots.overview(ds), tmp_path / name)
        assert [file.suffix for file in files] == [".png", ".svg"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()


def test_names_with_dots_keep_them(tmp_path, ds) -> None:
    png, svg = plots.save(plots.hourly_volume(ds).figure.get_figure(root=True), tmp_path / "run.v1.2")
    assert (png.name, svg.name) == ("run.v1.2.png", "run.v1.2.svg")


def test_no_global_state_of_matplotlib_is_used() -> None:
    code = "import sys, stress.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0
