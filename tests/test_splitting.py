"""Splitting: closed forms and brute force, moves that leave laws as they are, refusals, one program."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Command, write_small
from scipy.special import gammaincc
from scipy.stats import ks_2samp
from stress_kernels.shocks import blocks, garch, nudge
from stress_kernels.simulate import path_keys
from test_shocks import BATES, KOU, STUDENT

from stress import split_run
from stress.config import Run, load_config
from stress.devices import choose
from stress.pilot import event_of
from stress.shock import Grid, Shock, compile_shock
from stress.spec import InputError, RunError
from stress.splitting import LEAST_ORIGINS, Split, climb, find_levels, over_islands, refuse

BOUND = 45.0


class Radius:
    """Four normals, whose sum of squares is chi-squared: an event in closed form, 4e-9 at the bound."""

    arrays = 1

    def __init__(self, paths: int, seed: int, *, seeded_error: bool = False) -> None:
        self.rng, self.paths, self.seeded_error = np.random.default_rng(seed), paths, seeded_error

    def drawn(self) -> np.ndarray:
        self.given = self.rng.normal(size=(4, self.paths))
        return self._level(self.given)

    def copy(self, parents: np.ndarray) -> None:
        self.given = self.given[:, parents]

    def near(self, far: np.ndarray) -> np.ndarray:
        stays = 1 - far**2 if self.seeded_error else np.sqrt(1 - far**2)
        self.made = stays * self.given + far * self.rng.normal(size=self.given.shape)
        return self._level(self.made)

    def take(self, wanted: np.ndarray) -> None:
        self.given = np.where(wanted, self.made, self.given)

    def _level(self, given: np.ndarray) -> np.ndarray:
        return np.sum(given**2, axis=0) / BOUND


def off(found: np.ndarray, expected: float) -> float:
    """Distance of the islands' mean from what it should be, in standard errors."""
    return (found.mean() - expected) / (found.std(ddof=1) / np.sqrt(found.size))


def climbed(levels: np.ndarray, *, seeded_error: bool = False) -> np.ndarray:
    rngs = [np.random.default_rng((5, i)) for i in range(64)]
    return climb(Radius(64 * 512, 2, seeded_error=seeded_error), levels, 4, rngs).chances


def test_the_chance_of_a_closed_form_and_of_every_level_before_it() -> None:
    levels = find_levels(Radius(2048, 1), 0.2, 4, 40, np.random.default_rng(1))
    exact = gammaincc(2, BOUND * levels / 2)
    assert levels[-1] == 1 and exact[-1] == pytest.approx(3.98e-9, rel=0.01)
    chances = climbed(levels)
    assert all(abs(off(row, share)) < 4 for row, share in zip(chances, exact, strict=True))
    assert chances[-1].std(ddof=1) / 8 < 0.1 * exact[-1]
    # Moves that shrink what they move, and shares of the last level alone: what is wrong is seen.
    assert off(climbed(levels, seeded_error=True)[-1], exact[-1]) < -10
    assert off(chances[-1] / chances[-2], exact[-1]) > 10


def test_an_interval_over_islands_is_students() -> None:
    found = over_islands(np.array([1.0, 2.0, 3.0, 6.0]))
    assert (found.value, found.high) == pytest.approx((3.0, 3 + 3.18245 * np.sqrt(14 / 3 / 4)), rel=1e-5)
    assert found.low == 0.0


def test_levels_rise_where_many_paths_are_equally_close() -> None:
    class Steps(Radius):
        def _level(self, given: np.ndarray) -> np.ndarray:
            return np.floor(np.sum(given**2, axis=0)) / 20

    levels = find_levels(Steps(512, 1), 0.9, 2, 40, np.random.default_rng(1))
    assert levels[-1] == 1 and (np.diff(levels) > 0).all()
    assert abs(off(climb(Steps(64 * 512, 2), levels, 2, [np.random.default_rng(i) for i in range(64)]).chances[-1],
                   float(gammaincc(2, 10)))) < 4  # fmt: skip


def test_intervals_hold_the_truth() -> None:
    """Of 64 means of eight islands each; they are small, and have ten origins at the last level."""
    levels = find_levels(Radius(2048, 1), 0.2, 4, 40, np.random.default_rng(1))[:4]
    found = climb(Radius(512 * 192, 3), levels, 4, [np.random.default_rng((9, i)) for i in range(512)])
    assert found.origins.mean() > LEAST_ORIGINS
    for row, exact in zip(found.chances, gammaincc(2, BOUND * levels / 2), strict=True):
        intervals = [over_islands(some) for some in row.reshape(64, 8)]
        assert np.mean([one.low <= exact <= one.high for one in intervals]) > 0.87


def test_what_is_worth_too_little_is_refused() -> None:
    ups, downs = np.array([[0.1] * 4, [1e-6, 0, 0, 0]]), np.zeros((1, 4))
    found = Split(np.array([0.5, 1.0]), ups, downs, 48, 4096)
    with pytest.raises(RunError, match=r"chance of it, 2\.5e-07, is worth 1 plain paths .* come from 12 .* --moves"):
        refuse(found, "it")
    with pytest.raises(RunError, match="worth no plain paths"):
        refuse(replace(found, chances=0 * ups), "it")
    even = replace(found, chances=np.array([[0.1] * 4, [1e-6, 1.1e-6, 0.9e-6, 1e-6]]))
    refuse(even, "it")
    with pytest.raises(RunError, match=r"come from 8\.8 of those at the start, expected at least 10"):
        refuse(replace(even, origins=35), "it")


def hours(table: np.ndarray, *, wandering: bool) -> Shock:
    """Recorded hours in a new order, with or without a volatility that moves on."""
    recorded = blocks.Blocks(jnp.asarray(table, jnp.float32), jnp.float32(1.0 if wandering else 0.3))
    if not wandering:
        return Shock(blocks=recorded, steps=12)
    some = (jnp.full(2, x, jnp.float32) for x in (1e-5, 0.2, 0.1, 0.6))
    return Shock(garch=garch.Garch(recorded, *some, start=jnp.asarray([[1e-4, 1e-4], [4e-4, 4e-4]])), steps=12)


@pytest.fixture(scope="module")
def shocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shock]:
    """Everything that can be drawn, in four steps an hour."""
    config, grid = write_small(tmp_path_factory.mktemp("nudge")), Grid(["BTC", "ETH"], 3, 900)
    given = {"kou": KOU, "bates": BATES, "student_t": STUDENT}
    made = {name: compile_shock(load_config(config, overrides={"shock": x}).shock, grid) for name, x in given.items()}
    made["bates"] = replace(made["bates"], jumps=None)
    table = np.cumsum(np.random.default_rng(1).standard_t(4, (40, 4, 2)) / 100, axis=1)
    return made | {"block_bootstrap": hours(table, wandering=False), "garch": hours(table, wandering=True)}


@jax.jit
def moved(shock: Shock, keys: Any, other: Any, far: Any) -> tuple[Any, ...]:
    """Paths of both sets of keys, as ever, and made of the first one's numbers before and after a move."""
    parts, steps = shock.parts(), shock.steps
    old = nudge.numbers(parts, keys, steps)
    b = jnp.broadcast_to(far, (len(jax.tree.leaves(old)), far.size))
    made = (nudge.moved(parts, given, steps) for given in (old, nudge.nudged(parts, old, other, b, steps)))
    return shock.paths(keys), shock.paths(other), *made


@pytest.mark.parametrize("name", ["kou", "bates", "student_t", "block_bootstrap", "garch"])
def test_moves_leave_the_law_of_paths(shocks: dict[str, Shock], name: str) -> None:
    """By b = 0 nothing moves, by 1 all is anew; between them paths have the same law, and are near."""
    shock, paths = jax.tree.map(jnp.asarray, shocks[name]), 4096
    keys, other = (path_keys(jnp.uint32(seed), jnp.int32(0), paths) for seed in (5, 6))
    ends = jnp.where(jnp.arange(paths) % 2 > 0, 1.0, 0.0)
    plain, fresh, old, new = (np.asarray(x, np.float64) for x in moved(shock, keys, other, ends))
    assert np.abs(old - plain).max() < 1e-6
    assert np.abs(new - np.where(ends > 0, fresh, plain)).max() < 2e-5
    near = np.asarray(moved(shock, keys, other, jnp.full(paths, 0.4))[-1], np.float64)
    for value in (lambda x: x[-1, 0], lambda x: np.ptp(x[:, 1], axis=0), lambda x: x[-1, 0] - x[5, 1]):
        same: Any = ks_2samp(value(fresh), value(near))
        assert same.pvalue > 1e-3
        assert 0.2 < np.corrcoef(value(plain), value(near))[0, 1] < 0.98


POOLS = [{"name": "main", "equity_usd": 3000, "takeover_multiple": 3, "source": "made up"}]
CALM = STUDENT | {"daily_volatility": {"BTC": 0.0068, "ETH": 0.0082}}
BOOK = {"shock": CALM, "chunk": 1024, "step_seconds": 600, "venues.here.pools": POOLS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Heavy tails without jumps, for which there are no tilts."""
    return load_config(write_small(tmp_path_factory.mktemp("split")), overrides=BOOK)


@pytest.fixture(scope="module")
def plain(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Of 65,536 paths drawn as ever, whether the fund is exhausted, and the largest hour."""
    cloud, draw, found = (
        split_run._Cloud(run, choose("cpu"), event_of(run, "here/main", None)),
        jax.jit(Shock.paths),
        [],
    )
    for first in range(0, 65_536, 1024):
        log = draw(cloud.shock, path_keys(jnp.uint32(77), jnp.int32(first), 1024))
        found.append(cloud.simulated(log, *cloud.tables))
    whole = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *found)
    return whole["exhausted"][0], whole["volume"]


def test_splitting_gives_the_chances_of_brute_force(run: Run, plain: tuple[np.ndarray, np.ndarray]) -> None:
    """At 1e-3, of a fund and of an hour; all in one program, which the islands and levels of both share."""
    hour = float(np.quantile(plain[1], 0.999))
    events = ((event_of(run, "here/main", None), plain[0]), (event_of(run, None, hour), plain[1] >= hour))
    before = split_run._program()._cache_size()
    for event, happened in events:
        found, share = split_run.split(run, event, paths=2048, islands=8, device="cpu"), happened.mean()
        islands = found.chances[-1]
        error = np.hypot(np.sqrt(share / happened.size), islands.std(ddof=1) / np.sqrt(islands.size))
        assert 3e-4 < share < 3e-3
        assert abs(found.chance.value - share) < 4 * error
        assert error < 0.3 * share and len(found.levels) >= 4
        assert found.paths == 2560 * (1 + 4 * (len(found.levels) - 1))
    assert split_run._program()._cache_size() - before == 1


def test_what_cannot_be_split_is_refused(run: Run, small: Path) -> None:
    fund = event_of(run, "here/main", None)
    still = {"kind": "prescribed", "minutes": [0, 30], "moves": {"BTC": [0, -0.1], "ETH": [0, -0.1]}}
    with pytest.raises(InputError, match=r"small: shock\.kind is 'prescribed', expected one of which chance"):
        split_run.split(load_config(small, overrides={"shock": still}), fund)
    for paths, islands in ((96, 3), (120, 4), (1001, 4)):
        with pytest.raises(InputError, match=rf"--paths is {paths} and --islands {islands}, expected .* Choose 4096"):
            split_run.split(run, fund, paths=paths, islands=islands)
    with pytest.raises(InputError, match=r"no path of 256 comes beyond the level .*, expected the event, at 1"):
        split_run.split(run, event_of(run, None, 1e12), paths=512, islands=4, moves=1, device="cpu")


def test_split_as_a_person_does_it(small: Path, tmp_path: Path, liqstress: Command) -> None:
    text = small.read_text(encoding="utf-8").replace('kind = "gbm"', 'kind = "student_t"\ndegrees_of_freedom = 4.0')
    small.write_text(text.replace("{ BTC = 0.05, ETH = 0.06 }", "{ BTC = 0.0068, ETH = 0.0082 }"), encoding="utf-8")
    file, given = (
        tmp_path / "split.csv",
        ("--exhausts", "here/main", "--set", "chunk=1024", "--set", "step_seconds=600"),
    )
    done = liqstress("split", small, *given, "--paths", 2048, "--islands", 8, "--csv", file)
    assert done.code == 0, done.err
    for words in ("small: exhaustion of here/main", "an index moved by", "8 of 8 islands, from", "plain paths, "):
        assert words in done.out
    with file.open(encoding="utf-8") as stream:
        *_, last = csv.DictReader(stream)
    islands = [float(last[f"island_{i + 1}"]) for i in range(8)]
    assert float(last["level"]) == 1 and float(last["chance"]) == pytest.approx(np.mean(islands))
    done = liqstress("split", small, *given, "--paths", 256, "--islands", 8, "--moves", 1, "--share", 0.02)
    assert done.code == 3 and "it may be far off. Give more --paths" in done.err


def test_days_that_are_left_out_are_said(small: Path, liqstress: Command) -> None:
    days = "behaviour.recovery={days=3, step_minutes=30, volatility_half_life_days=2, source='made up'}"
    done = liqstress("split", small, "--exhausts", "here/main", "--paths", 7, "--set", days)
    assert done.code == 2
    assert done.out == "The event is one of the 1 h; the 3 days after them are left out.\n"
