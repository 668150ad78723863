"""Pictures look as they did: against `tests/pictures`, which `pytest tests/test_pictures.py --update` draws anew."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from stress import plots
from stress.comparison import compare
from stress.comparison_plot import comparison_picture
from stress.config import config_json, load_config
from stress.plots_funds import fund_drawdown
from stress.plots_levels import levels_picture
from stress.plots_path import path_picture
from stress.plots_reverse import frontier_picture
from stress.plots_tail import tail_figure
from stress.plots_twins import amplification_picture
from stress.spec import InputError
from stress.tail import tail

FOLDER = Path(__file__).parent / "pictures"
DIFFERENT = 0.0005
"""Mean difference of a channel, of 1, from which on pictures differ: a line elsewhere, not a pixel of a letter."""


def of_axes(draw: Callable, ds: xr.Dataset) -> Figure:
    figure = draw(ds).figure
    assert isinstance(figure, Figure)
    return figure


def policies() -> Figure:
    """Two runs of synthetic figures, one with a quarter less."""
    config = json.loads(config_json(load_config(ROOT / "configs" / "quickstart.toml")))
    a, b = (
        synthetic(120, 6).assign_attrs(config=json.dumps({**config, "name": name}), name=name, seed=config["seed"])
        for name in ("present", "capped")
    )
    for name in ("liquidation_volume", "deficit", "surplus", "adl_volume", "adl_haircut"):
        b[name] = 0.75 * b[name]
    return comparison_picture(compare({"present": a, "capped": b}))


def twins() -> Figure:
    """A run, and one of which a fifth is left."""
    ds = synthetic(200, 6).assign_attrs(name="synthetic", seed=7)
    twin = ds.copy(deep=True)
    twin["liquidation_volume"] *= 0.2
    return amplification_picture(ds, twin)


def frontier() -> Figure:
    """A move that halves as books thin out, and nothing found at the last value."""
    told: dict[float, Any] = {
        depth: SimpleNamespace(minutes=15.0, move={"A": -0.1 / depth, "B": -0.12 / depth}, log_chance=-9.0 + depth)
        for depth in (1.0, 2.0, 4.0)
    }
    return frontier_picture({**told, 8.0: InputError("nothing")}, "synthetic", "depth", "601 M USD in an hour")


def path(finished: Finished) -> Figure:
    return path_picture(stress.explain(finished.store, 3))


def levels(finished: Finished) -> Figure:
    of, moves = stress.Levels(stress.load_config(finished.config)), np.linspace(-0.2, 0.2, 21).tolist()
    return levels_picture(of.liquidation_map(moves), of.reproduction_number(moves, block_usd=1e3))


OF_RUNS: dict[str, Callable[[Finished], Figure]] = {"path": path, "levels": levels}
PICTURES: dict[str, Callable[[], Figure]] = {
    "twins": twins,
    "frontier": frontier,
    "overview": lambda: plots.overview(synthetic(200, 24)),
    "overview_of_everything": lambda: plots.overview(backstopped()),
    "fan": lambda: of_axes(plots.hourly_volume, synthetic(200, 24)),
    "exceedance": lambda: of_axes(plots.exceedance, synthetic(200, 24)),
    "drawdown": lambda: of_axes(fund_drawdown, synthetic(400, 24)),
    "tail": lambda: tail_figure(tail(synthetic(640, 2)), "synthetic"),
    "policies": policies,
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
