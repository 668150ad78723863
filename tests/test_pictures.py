"""Pictures look as they did: against `tests/pictures`, which `pytest tests/test_pictures.py --update` draws anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT, Finished
from matplotlib.figure import Figure
from matplotlib.image import imread
from test_results import backstopped, synthetic

import stress
from stress import plots, plots_reverse, plots_tail, plots_twins
from stress.comparison import Comparison, compare
from stress.comparison_plot import comparison_picture, differences, who_pays
from stress.config import load_config
from stress.digests import config_json
from stress.plots_funds import fund_drawdown
from stress.plots_levels import levels_picture, reproduction, what_jumps_close, where_triggers_lie
from stress.plots_path import cascade, path_picture
from stress.plots_reverse import frontier_picture
from stress.plots_twins import amplification_picture
from stress.spec import InputError
from stress.tail import Tail, tail
from stress.twins import compare as amplified

FOLDER = Path(__file__).parent / "pictures"
DIFFERENT = 0.0005
"""Mean difference of a channel, of 1, from which on pictures differ: a line elsewhere, not a pixel of a letter."""


def of_axes(draw: Callable, *of: Any) -> Figure:
    """A panel alone."""
    figure = draw(*of).figure
    assert isinstance(figure, Figure)
    return figure


day, everything = cache(lambda: synthetic(200, 24)), cache(backstopped)


@cache
def tailed() -> Tail:
    return tail(synthetic(640, 2))


@cache
def policies() -> Comparison:
    """Two runs of synthetic figures, one with a quarter less."""
    config = json.loads(config_json(load_config(ROOT / "configs" / "quickstart.toml")))
    a, b = (
        synthetic(120, 6).assign_attrs(config=json.dumps({**config, "name": name}), name=name, seed=config["seed"])
        for name in ("present", "capped")
    )
    for name in ("liquidation_volume", "deficit", "surplus", "adl_volume", "adl_haircut"):
        b[name] = 0.75 * b[name]
    return compare({"present": a, "capped": b})


@cache
def twins() -> tuple[xr.Dataset, xr.Dataset]:
    """A run, and one of which a fifth is left."""
    ds = synthetic(200, 6).assign_attrs(name="synthetic", seed=7)
    twin = ds.copy(deep=True)
    twin["liquidation_volume"] *= 0.2
    return ds, twin


MOVES: dict[float, Any] = {
    depth: SimpleNamespace(minutes=15.0, move={"A": -0.1 / depth, "B": -0.12 / depth}, log_chance=-9.0 + depth)
    for depth in (1.0, 2.0, 4.0)
}
"""Moves that halve as books thin out."""


def frontier() -> Figure:
    """Nothing is found at the last value."""
    return frontier_picture({**MOVES, 8.0: InputError("nothing")}, "synthetic", "depth", "601 M USD in an hour")


def path(finished: Finished) -> Figure:
    return path_picture(stress.explain(finished.store, 3))


@cache
def levels(config: Path) -> tuple[xr.Dataset, xr.Dataset]:
    of, moves = stress.Levels(stress.load_config(config)), np.linspace(-0.2, 0.2, 21).tolist()
    return of.liquidation_map(moves), of.reproduction_number(moves, block_usd=1e5)


OF_RUNS: dict[str, Callable[[Finished], Figure]] = {
    "path": path,
    "path_cascade": lambda finished: of_axes(cascade, stress.explain(finished.store, 3)),
    "levels": lambda finished: levels_picture(*levels(finished.config)),
    "levels_triggers": lambda finished: of_axes(where_triggers_lie, levels(finished.config)[0], "all"),
    "levels_jumps": lambda finished: of_axes(what_jumps_close, levels(finished.config)[0], "all"),
    "levels_reproduction": lambda finished: of_axes(reproduction, levels(finished.config)[1], "BTC"),
}
PICTURES: dict[str, Callable[[], Figure]] = {
    "twins": lambda: amplification_picture(*twins()),
    "twins_hours": lambda: of_axes(plots_twins.hours_of_both, *twins()),
    "twins_ratios": lambda: of_axes(plots_twins.ratios, amplified(*twins())),
    "frontier": frontier,
    "frontier_moves": lambda: of_axes(plots_reverse.moves_against, MOVES, "depth"),
    "frontier_often": lambda: of_axes(plots_reverse.often_against, MOVES, "depth"),
    "overview": lambda: plots.overview(day()),
    "overview_of_everything": lambda: plots.overview(everything()),
    "fan": lambda: of_axes(plots.hourly_volume, day()),
    "exceedance": lambda: of_axes(plots.exceedance, day()),
    "equity": lambda: of_axes(plots.fund_equity, everything()),
    "absorption": lambda: of_axes(plots.absorption, everything()),
    "collateral": lambda: of_axes(plots.collateral_sold, everything()),
    "payers": lambda: of_axes(plots.adl_payers, everything()),
    "drawdown": lambda: of_axes(fund_drawdown, synthetic(400, 24)),
    "tail": lambda: plots_tail.tail_figure(tailed(), "synthetic"),
    "tail_exceedance": lambda: of_axes(plots_tail.exceedance, tailed()),
    "tail_mean_excess": lambda: of_axes(plots_tail.mean_excess, tailed()),
    "tail_shape": lambda: of_axes(plots_tail.shape, tailed()),
    "policies": lambda: comparison_picture(policies()),
    "policies_differences": lambda: of_axes(differences, policies()),
    "policies_payers": lambda: of_axes(who_pays, policies()),
}


@pytest.mark.parametrize("name", [*PICTURES, *OF_RUNS])
def test_a_picture_looks_as_it_did(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, finished: Finished
) -> None:
    now, kept = tmp_path / f"{name}.png", FOLDER / f"{name}.png"
    figure = PICTURES[name]() if name in PICTURES else OF_RUNS[name](finished)
    figure.savefig(now, dpi=50)
    if request.config.getoption("--update"):
        FOLDER.mkdir(exist_ok=True)
        kept.write_bytes(now.read_bytes())
    new, old = imread(now), imread(kept)
    assert new.shape == old.shape
    assert np.abs(new - old).mean() < DIFFERENT


def test_another_line_is_seen() -> None:
    ds = synthetic(200, 24)
    ds["liquidation_volume"][:, 12] *= 3
    figure = of_axes(plots.hourly_volume, ds)
    figure.set_dpi(50)
    figure.canvas.draw()
    new = np.asarray(figure.canvas.buffer_rgba()) / 255  # type: ignore[attr-defined]
    old = imread(FOLDER / "fan.png")
    assert new.shape == old.shape
    assert np.abs(new - old).mean() > DIFFERENT
