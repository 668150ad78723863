"""One path of a run, step by step: it is the run's, whichever path; and what cannot be explained is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import Command, Finished

import stress
from stress.config import Run, load_config
from stress.digests import config_json, digest
from stress.drilldown import FLOWS, STOCKS, by_hour, choose_path, explain
from stress.plots_path import path_picture
from stress.risk import summary
from stress.spec import InputError
from stress.timeline import by_minute, choose_market, largest_hour, timeline


@pytest.fixture(scope="module")
def steps(finished: Finished) -> xr.Dataset:
    """The worst path of the small run."""
    return explain(finished.store, device="cpu")


@pytest.mark.parametrize("path", [0, 17, 39, "worst"])
def test_steps_add_up_to_the_hours_of_the_run(path: int | str, finished: Finished) -> None:
    """Also on the last path, in a block that others only fill up."""
    found = explain(finished.store, path, device="cpu")
    kept = stress.open_run(finished.store).sel(path=found.attrs["path"]).load()
    assert found.sizes["step"] == 30
    assert found["step"].values[[0, -1]].tolist() == [2, 60]
    for name in FLOWS:
        np.testing.assert_allclose(
            by_hour(found[name].values, 1), kept[name].values, rtol=1e-5, atol=0.01, err_msg=name
        )
    for name in STOCKS:
        np.testing.assert_allclose(found[name].values[-1:], kept[name].values, rtol=1e-7, err_msg=name)
    assert found.attrs["largest_difference"] < 1e-6
    low = found["index"].values.min(axis=0) / [100, 10]
    assert np.all(low >= kept["index_low"].values[0] - 1e-6)


def test_a_step_is_consistent_in_itself(steps: xr.Dataset) -> None:
    closed = steps["liquidation_volume"].sum("side", dtype=float)
    np.testing.assert_allclose(closed, steps["absorbed_volume"].sum("layer", dtype=float), rtol=1e-5, atol=0.01)
    assert float(closed.sum()) > 0
    assert np.count_nonzero(closed.sum(["venue", "asset"])) > 1
    # A median of index, index with the average basis, and last lies between index and last.
    index, mark, last = steps["index"].values[:, None], steps["mark"].values, steps["last"].values
    assert np.abs(last / index - 1).max() > 1e-3
    assert np.all((mark - index) * (last - mark) >= -1e-4)


def test_paths_are_found_by_what_they_are_known_for(finished: Finished) -> None:
    ds = stress.open_run(finished.store)
    assert choose_path(ds, "worst") == summary(ds).worst_path
    assert choose_path(ds, "fund") == int(ds["fund_drawdown"].sum("pool").argmax("path"))
    assert choose_path(ds, 7) == choose_path(ds, "7") == 7
    failed = ds.load().copy(deep=True)
    failed["status"][choose_path(ds, "worst")] = 1
    assert choose_path(failed, "worst") != choose_path(ds, "worst")


@pytest.mark.parametrize("path", ["40", "-1", "best", "1.5"])
def test_a_path_that_is_not_there_is_refused(path: str, finished: Finished, liqstress: Command) -> None:
    outcome = liqstress("explain", finished.store, "--path", path)
    assert outcome.code == 2
    assert f"--path is '{path}', expected 'worst', 'fund' or a number from 0 to 39" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--asset", "SOL"], "--asset is 'SOL', expected one of the run's: BTC, ETH"),
        (["--venue", "there"], "--venue is 'there', expected one of the run's: here"),
    ],
)
def test_an_unknown_market_is_refused(words: list[str], said: str, finished: Finished, liqstress: Command) -> None:
    outcome = liqstress("explain", finished.store, *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def rewritten(finished: Finished, folder: Path, **attributes: Any) -> Path:
    """A copy of the store with other attributes."""
    store = finished.copy(folder)
    file = store / "zarr.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["attributes"] |= attributes
    file.write_text(json.dumps(data), encoding="utf-8")
    return store


def test_a_config_that_this_version_does_not_know_is_refused(
    finished: Finished, liqstress: Command, tmp_path: Path
) -> None:
    config = json.loads(stress.open_run(finished.store).attrs["config"]) | {"lookahead": 3}
    outcome = liqstress("explain", rewritten(finished, tmp_path, config=json.dumps(config)))
    assert outcome.code == 2
    assert "lookahead" in outcome.err
    assert "The run was made by version" in outcome.err
    assert outcome.err.count("\n") == 1


def test_files_that_have_changed_since_are_refused(finished: Finished, liqstress: Command, tmp_path: Path) -> None:
    outcome = liqstress("explain", rewritten(finished, tmp_path, config_sha256="0" * 64))
    assert outcome.code == 2
    assert "config_sha256 is 000000000000, expected" in outcome.err
    assert outcome.err.count("\n") == 1


def test_steps_that_are_not_those_of_the_run_are_refused(
    finished: Finished, liqstress: Command, tmp_path: Path
) -> None:
    """As from a version that computed something else: here with another impact."""
    other = load_config(finished.config, overrides={"impact.rho": 0.9})
    store = rewritten(finished, tmp_path, config=config_json(other), config_sha256=digest(other))
    outcome = liqstress("explain", store)
    assert outcome.code == 2
    assert "% of an hour's volume from what is kept, expected at most 0.1 %" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_stored_config_is_the_run_in_the_same_order(finished: Finished) -> None:
    """Assets in another order draw other random numbers, and rows of a correlation matrix mean others."""
    run = load_config(finished.config)
    turned = Run.model_validate(run.model_dump() | {"assets": dict(reversed(run.model_dump()["assets"].items()))})
    again = Run.model_validate_json(config_json(turned))
    assert list(again.assets) == list(turned.assets) == ["ETH", "BTC"]
    assert digest(again) == digest(turned) != digest(run)


def test_a_timeline_is_of_what_was_asked_for(steps: xr.Dataset) -> None:
    whole, part = timeline(steps), timeline(steps, asset="ETH")
    assert whole["closed_usd"].sum() == pytest.approx(float(steps["liquidation_volume"].sum(dtype=float)))
    other = timeline(steps, "here", "BTC")
    np.testing.assert_allclose(part["closed_usd"] + other["closed_usd"], whole["closed_usd"], rtol=1e-6)
    np.testing.assert_array_equal(part["index_usd"], steps["index"].sel(asset="ETH"))
    most = steps["liquidation_volume"].sum(["step", "venue", "side"]).idxmax("asset").item()
    assert choose_market(steps, None, None) == {"venue": "here", "asset": most}
    np.testing.assert_array_equal(whole["mark_usd"], steps["mark"].sel(venue="here", asset=most))
    assert largest_hour(whole) == 0
    with pytest.raises(InputError, match="expected one of the run's"):
        timeline(steps, asset="SOL")
    assert "vault_equity_usd" not in whole
    vault = timeline(steps.assign(vault_equity=steps["vault_equity"].fillna(7.0)))
    assert vault["vault_equity_usd"].tolist() == [7.0] * 30


def test_short_steps_are_added_up_to_minutes() -> None:
    columns = {"minute": np.arange(1, 13) / 6.0, "closed_usd": np.arange(12.0), "fund_usd": np.arange(12.0)}
    minutes = by_minute(columns, 10)
    assert minutes["minute"].tolist() == [1, 2]
    assert minutes["closed_usd"].tolist() == [15, 51]
    assert minutes["fund_usd"].tolist() == [5, 11]
    np.testing.assert_array_equal(by_minute(columns, 60)["closed_usd"], columns["closed_usd"])


def test_the_command_prints_draws_and_writes(
    steps: xr.Dataset, finished: Finished, liqstress: Command, tmp_path: Path
) -> None:
    store, file = finished.copy(tmp_path), tmp_path / "path.csv"
    outcome = liqstress("explain", store, "--csv", file)
    assert outcome.code == 0, outcome.err
    path = steps.attrs["path"]
    for words in (f"small: path {path}, hour 0", "triggered", "book", "funds: since the start, when they had 500 USD"):
        assert words in outcome.out
    assert (tmp_path / f"copy-path-{path}.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / f"copy-path-{path}.svg").read_bytes()
    with file.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["minute"]) for row in rows] == steps["step"].values.tolist()
    total = sum(float(row["closed_usd"]) for row in rows)
    kept = stress.open_run(finished.store)["liquidation_volume"].sel(path=path).sum(dtype=float)
    assert total == pytest.approx(float(kept), rel=1e-6)


def test_the_picture_shows_prices_and_layers(steps: xr.Dataset) -> None:
    fig = path_picture(steps, asset="BTC")
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles[0] == "Prices of BTC at here, whole run" and titles[1] == "Prices of BTC at here, hour 0"
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in fig.axes[0].lines}
    np.testing.assert_array_equal(drawn["mark"], steps["mark"].sel(venue="here", asset="BTC"))
    assert all("[" in ax.get_xlabel() and ax.get_ylabel() for ax in fig.axes)
