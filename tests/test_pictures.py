"""Pictures look as they did: against `tests/pictures`, which `pytest tests/test_pictures.py --update` draws anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT
from matplotlib.figure import Figure
from matplotlib.image import imread
from test_results import backstopped, synthetic

from stress import plots
from stress.comparison import compare
from stress.comparison_plot import comparison_picture
from stress.config import config_json, load_config
from stress.plots_funds import fund_drawdown
from stress.plots_tail import tail_figure
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


PICTURES: dict[str, Callable[[], Figure]] = {
    "overview": lambda: plots.overview(synthetic(200, 24)),
    "overview_of_everything": lambda: plots.overview(backstopped()),
    "fan": lambda: of_axes(plots.hourly_volume, synthetic(200, 24)),
    "exceedance": lambda: of_axes(plots.exceedance, synthetic(200, 24)),
    "drawdown": lambda: of_axes(fund_drawdown, synthetic(400, 24)),
    "tail": lambda: tail_figure(tail(synthetic(640, 2)), "synthetic"),
    "policies": policies,
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_looks_as_it_did(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    now, kept = tmp_path / f"{name}.png", FOLDER / f"{name}.png"
    PICTURES[name]().savefig(now, dpi=50)
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
