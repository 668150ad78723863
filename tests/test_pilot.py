"""A pilot on a small book: its tilts give the chances of brute force, and reach rarer ones."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Command, write_small
from stress_kernels.simulate import path_keys
from test_shocks import GBM, KOU, MERTON

from stress.config import Run, load_config
from stress.console_rare import tilts_as_toml
from stress.devices import choose
from stress.diffusions import Kou, Merton, NormalJumps
from stress.intervals import Weighed, probability
from stress.pilot import _Drawing, event_of, pilot
from stress.sampling import Importance
from stress.scenarios import Gbm
from stress.shock import Grid, compile_shock
from stress.spec import InputError, validate
from stress.tilting import Did, first_guess, refitted, tempered, ways

POOLS = [{"name": "main", "equity_usd": 3000, "takeover_multiple": 3, "source": "made up"}]
RARER = 1000


def shock(per_day: float) -> dict[str, Any]:
    """Jumps are rare and without them nothing happens: the chance of exhaustion is proportional to their intensity."""
    law = {"per_day": per_day, "mean": 0.0, "sd": 0.02}
    few = {"daily_volatility": {"BTC": 0.01, "ETH": 0.01}, "own": {"ETH": law}}
    return MERTON | few | {"common": MERTON["common"] | law}


def overrides(per_day: float) -> dict[str, Any]:
    return {"shock": shock(per_day), "chunk": 1024, "step_seconds": 600, "venues.here.pools": POOLS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fund that is exhausted once in a million times."""
    return load_config(write_small(tmp_path_factory.mktemp("pilot")), overrides=overrides(0.1 / RARER))


@pytest.fixture(scope="module")
def drawing(run: Run) -> _Drawing:
    return _Drawing(run, choose("cpu"), event_of(run, "here/main", None))


def with_intensity(drawing: _Drawing, per_day: float) -> _Drawing:
    """The same book and program under a shock with other intensities."""
    other = copy.copy(drawing)
    other.run = drawing.run.model_copy(update={"shock": validate(Merton, shock(per_day), "shock")})
    tables = compile_shock(other.run.shock, Grid(list(other.run.assets), 1, 600))
    other.built = replace(drawing.built, shock=tables)
    return other


_plain = jax.jit(lambda shock, keys: shock.paths(keys))


def brute_force(drawing: _Drawing, paths: int) -> float:
    """Share of plain paths on which the fund is exhausted."""
    hits = 0
    for first in range(0, paths, drawing.size):
        keys = path_keys(jnp.uint32(77), jnp.int32(first), drawing.size)
        log = _plain(drawing.built.shock, keys)
        hits += int(np.sum(np.asarray(drawing.simulated(log, *drawing.tables)["exhausted"])))
    return hits / paths


def test_tilts_of_a_pilot_give_the_chances_of_brute_force(
    run: Run, drawing: _Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1e-3 by 65,536 plain paths, and at a thousandth of it, to 10 % by a hundredth of the plain paths or less."""
    monkeypatch.setattr("stress.pilot._Drawing", lambda *_: drawing)
    found = pilot(run, drawing.event, paths=2048, device="cpu")
    assert found.turns[-1].reached > 200
    often = with_intensity(drawing, 0.1)
    paths, plain = 65_536, brute_force(often, 65_536)
    error = np.sqrt(plain / paths)
    assert 5e-4 < plain < 2e-3
    for of, rarer in ((often, 1), (drawing, RARER)):
        _, weight, level, _ = of(found.sampling, 40, 8192)
        estimate = probability(level >= 1, weight)
        assert isinstance(estimate, Weighed)
        relative = 1 / np.sqrt(estimate.value * estimate.draws)
        assert abs(rarer * estimate.value - plain) < 4 * np.hypot(error, relative * plain)
        assert abs(weight.mean() - 1) < 4 * weight.std() / np.sqrt(weight.size)
        assert relative < 0.1
        assert estimate.draws > (100 * 8192 if rarer > 1 else 0)


def test_an_event_is_one_of_the_runs(run: Run, small: Path) -> None:
    for given, says in (
        ((None, None), "either --exhausts FUND or --volume USD"),
        (("here/main", 1e6), "either --exhausts FUND or --volume USD"),
        ((None, -1.0), r"--volume is -1 USD, expected more than 0"),
        (("here/other", None), r"'here/other', expected a fund of the run that has money: here/main"),
    ):
        with pytest.raises(InputError, match=says):
            event_of(run, *given)
    still = {"kind": "prescribed", "minutes": [0, 30], "moves": {"BTC": [0, -0.1], "ETH": [0, -0.1]}}
    prescribed = load_config(small, overrides={"shock": still})
    with pytest.raises(InputError, match=r"small: .* Add shock\.noise, or leave sampling out"):
        pilot(prescribed, event_of(prescribed, "here/main", None))


def test_an_event_out_of_reach_is_refused(run: Run, drawing: _Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    far = copy.copy(drawing)
    far.event = event_of(run, None, 1e12)
    monkeypatch.setattr("stress.pilot._Drawing", lambda *_: far)
    with pytest.raises(
        InputError, match=r"--turns is 2, after which a tenth .* of an hour above 1e\+12 USD, expected 1"
    ):
        pilot(run, far.event, paths=1024, turns=2, device="cpu")


def did(sizes: np.ndarray, ends: np.ndarray | None = None) -> Did:
    """Jumps of two sources, one each, which begin where their size is not zero."""
    return Did(sizes != 0, sizes, ends, 0.5, ["BTC", "ETH"])


def test_a_tilt_has_the_moments_of_its_way() -> None:
    """Half of the weight goes down with all, half up with ETH alone; the heavier paths of one way count twice."""
    spec, paths = validate(Merton, shock(0.5), "shock"), 40
    sizes = np.zeros((2, 1, paths))
    sizes[0, 0, :20], sizes[1, 0, 20:] = np.linspace(-0.10, -0.06, 20), 0.08
    weight = np.where(np.arange(paths) < 10, 2.0, 1.0) * np.where(np.arange(paths) < 20, 1.0, 1.5)
    one = did(sizes)
    assert ways(spec, one).tolist() == [1] * 20 + [4] * 20
    found = refitted(spec, one, weight)
    assert [tilt.share for tilt in found.tilts] == pytest.approx([0.45, 0.45])
    down = next(tilt for tilt in found.tilts if tilt.common is not None)
    up = next(tilt for tilt in found.tilts if tilt.own)
    assert isinstance(down.common, NormalJumps)
    mean = np.average(sizes[0, 0, :20], weights=weight[:20])
    sd = np.sqrt(np.average((sizes[0, 0, :20] - mean) ** 2, weights=weight[:20]))
    assert dict(down.common) == pytest.approx({"per_day": 2.0, "mean": mean, "sd": sd}, rel=1e-3)
    assert dict(up.own["ETH"]) == pytest.approx({"per_day": 2.0, "mean": 0.08, "sd": 0.3 * 0.02}, rel=1e-3)


def test_a_drift_is_fitted_where_it_is_no_noise() -> None:
    spec = validate(Gbm, GBM, "shock")
    noise = spec.factor(["BTC", "ETH"], 0.5) @ np.random.default_rng(1).normal(size=(2, 400))
    none = np.zeros((0, 0, 400))
    tilt = refitted(spec, did(none, noise - 0.1), np.ones(400)).tilts[0]
    assert tilt.drift_per_day == pytest.approx({"BTC": -0.2, "ETH": -0.2}, rel=0.05)
    assert not refitted(spec, did(none, noise), np.ones(400)).tilts[0].drift_per_day


def test_weights_are_flattened_until_they_are_worth_a_tenth() -> None:
    even, uneven = np.ones(100), np.exp(np.linspace(0, 40, 100))
    assert tempered(even) == pytest.approx(even / 100)
    flat = tempered(np.concatenate([uneven, np.zeros(50)]))
    assert 1 / np.sum(flat**2) >= 10
    assert (flat[100:] == 0).all()
    assert (np.diff(flat[:100]) > 0).all()


def test_what_a_pilot_writes_is_what_a_config_reads(small: Path, tmp_path: Path) -> None:
    for law, table in ((Merton, shock(0.5)), (Kou, KOU)):
        guess = first_guess(validate(law, table, "shock"), 0.5, ["BTC", "ETH"])
        file = tmp_path / "tilts.toml"
        file.write_text(tilts_as_toml(guess, "made up"), encoding="utf-8")
        again = load_config(small, overrides={"shock": table, "sampling": str(file)}).sampling
        assert isinstance(again, Importance)
        assert again.tilts == guess.tilts
        assert again.source == "made up"


def test_tilt_run_and_show(small: Path, tmp_path: Path, liqstress: Command) -> None:
    """As a person does it: a pilot, a run with its file, the figures, and what cannot be done with it."""
    text = small.read_text(encoding="utf-8").partition("[shock]")
    laws = "{ per_day = 0.5, mean = 0.0, sd = 0.02, minutes = [0.5, 1.0], beta = { BTC = 1.0, ETH = 1.5 } }"
    body = f'kind = "merton"\ncommon = {laws}\ncorrelation = 0.5\ndaily_volatility = {{ BTC = 0.01, ETH = 0.01 }}\n'
    small.write_text(text[0] + "[shock]\n" + body + '\n[venues]\nhere = "here.toml"\n', encoding="utf-8")
    file, common = tmp_path / "tilts.toml", ("--set", "paths=1024", "--set", "chunk=1024", "--set", "step_seconds=600")
    done = liqstress("tilt", small, "--exhausts", "here/main", "--paths", 1024, "--turns", 9, "--out", file, *common)
    assert done.code == 0, done.err
    assert "exhaustion of here/main" in done.out and f"--set sampling={file}" in done.out
    assert (
        "liqstress tilt, exhaustion of here/main: seed 3" in tomllib.loads(file.read_text(encoding="utf-8"))["source"]
    )
    store = tmp_path / "rare.zarr"
    done = liqstress("run", small, "--set", f"sampling={file}", "--out", store, *common)
    assert done.code == 0, done.err
    assert "paths they are worth, by their weights" in done.out
    assert "chance of exhaustion: rests on" in done.out and "plain ones" in done.out
