"""The reverse stress test against closed forms and brute force.

All books here have the same shapes, so that the engine and its slopes are compiled once.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, Command
from reference.small import crowd, market, pool, positions_of, run_of, venue, write_positions
from scipy.stats import norm
from stress_kernels.simulate import path_keys

from stress import reverse_search
from stress.build import build, on_device
from stress.collateral import AllAccounts
from stress.concentration import concentrated
from stress.config import Run
from stress.console import as_toml
from stress.reverse import Reverse, changed
from stress.reverse_target import Levers, target_of
from stress.spec import InputError

K = 1e4
SD = {"A": 0.03, "B": 0.05}
MINUTES = 5
DAYS = MINUTES / 1440
COVARIANCE = DAYS * np.array([[0.03**2, 0.6 * 0.03 * 0.05], [0.6 * 0.03 * 0.05, 0.05**2]])
GBM = {"kind": "gbm", "daily_volatility": SD, "correlation": 0.6}
THIN = {
    "adv_usd": 1e9, "take_bound_bps": 200, "throughput_usd_per_minute": 4e6, "auction_usd_per_hour": 1e6,
    "unwind_usd_per_minute": 2e5,
}  # fmt: skip
IMPACT = {"i_ref": 0.01, "depth": False}


def book(folder: Path, rows: list[tuple], rules: dict[str, Any] | None = None, money: float = 1e9, **more: Any) -> Run:
    """One venue with two assets, steps of five minutes, and accounts of (asset, coins, margin)."""
    file = folder / "positions.parquet"
    table = positions_of([(0, a, q, 100.0, margin, 1) for a, q, margin in rows] if len(rows[0]) == 3 else rows)
    write_positions(file, table, ["one"], ["A", "B"])
    place = venue("one", {a: market(**(rules or {})) for a in "AB"}, pools=[pool(money, more.pop("multiple", 0))])
    given = {"horizon_hours": 1, "step_seconds": 300, "dtype": "float32", "shock": GBM} | more
    return run_of([place], SD, file, **given)


def crowded(folder: Path, **more: Any) -> Run:
    """Some hundred accounts in thin books, with a small fund and a slow engine."""
    rows = crowd(np.random.default_rng(4), [(0, 0), (0, 1)])
    return book(folder, rows, THIN, 2e7, **({"impact": IMPACT, "multiple": 2} | more))


def test_one_trigger_is_reached_by_the_move_that_the_correlation_says(tmp_path):
    """A long of one asset, closed at 90 / 0.99: the likeliest move is Sigma e / (e' Sigma e) times the log of that."""
    run = book(tmp_path, [(0, K, 10 * K)])
    test = Reverse(run, minutes=MINUTES, device="cpu")
    found = test.find(test.target(volume=0.5 * 90 * K), days=0)
    level = np.log(0.9 / 0.99)
    assert found.log_move == pytest.approx(COVARIANCE[0] / COVARIANCE[0, 0] * level, rel=2e-3)
    assert found.log_move[0] == pytest.approx(level, abs=2e-6)
    sigmas = -level / np.sqrt(COVARIANCE[0, 0])
    assert found.log_density == pytest.approx(-0.5 * sigmas**2, rel=1e-4)
    assert found.distance == pytest.approx(sigmas, rel=1e-4)
    assert found.log_chance == pytest.approx(norm.logsf(sigmas), rel=1e-3)
    assert found.alignment == pytest.approx(-1, abs=1e-4)
    assert found.reached == pytest.approx(K * 100 * np.exp(level), rel=1e-4)
    assert 1 - 1e-4 < found.below < 1


def test_a_fund_of_two_assets_is_exhausted_by_the_likeliest_of_all_such_jumps(tmp_path):
    """In a jump of one step each long lacks bankruptcy price less price: of the curve on which the fund is empty, price
    by price of the first asset, the likeliest point."""
    run = book(tmp_path, [(0, K, 10 * K), (1, 2 * K, 30 * K)], money=30 * K)
    first = np.linspace(60, 110, 200_001)
    second = 85 - (30 - np.maximum(90 - first, 0)) / 2
    logs = np.log(np.array([first, second]) / 100)
    square = np.einsum("ap,ab,bp->p", logs, np.linalg.inv(COVARIANCE), logs)
    test = Reverse(run, minutes=MINUTES, device="cpu")
    found = test.find(test.target(exhausts="one/main"), days=0)
    assert found.log_density == pytest.approx(-0.5 * square.min(), rel=1e-3)
    assert found.log_move == pytest.approx(logs[:, square.argmin()], rel=0.01)
    assert found.reached == pytest.approx(0, abs=1)


@pytest.fixture(scope="module")
def crowd_test(tmp_path_factory) -> Reverse:
    return Reverse(crowded(tmp_path_factory.mktemp("crowd")), minutes=3 * MINUTES, device="cpu")


@pytest.mark.parametrize("asked", [{"volume": 1e8}, {"exhausts": "one/main"}, {"adl": "one"}])
def test_no_move_of_a_grid_is_likelier(crowd_test, asked):
    """Brute force: of all moves of a grid that reach the target in the engine none has a larger density, but for a
    thousandth where the trigger of one large account makes a corner of the edge."""
    target = crowd_test.target(**asked)
    found = crowd_test.find(target, days=0)
    engine = crowd_test._engine(Levers())
    axis = np.linspace(-2, 2, 41) * np.abs(found.log_move).max()
    moves = np.stack(np.meshgrid(axis, axis)).reshape(2, -1)
    reached = target.margins(engine.measured(moves), engine.cash)[0].max(axis=0) >= 0
    assert 0 < reached.sum() < moves.shape[1]
    law = crowd_test.law
    best = law.density(moves[:, reached]).log.max() - law.density(np.zeros((2, 1))).log[0]
    assert found.log_density >= best - 1e-3 * abs(best)
    assert found.log_density == pytest.approx(best, rel=0.25)
    at = found.log_move[:, None] * [found.below, 1.0]
    assert list(target.margins(engine.measured(at), engine.cash)[0].max(axis=0) >= 0) == [False, True]


def test_slopes_are_those_of_differences_in_every_layer(crowd_test):
    """Falls and rises through book, auction, takeover, ADL and an empty fund, in 32 bits."""
    engine, width, step = crowd_test._engine(Levers()), 0.01, 1e-3
    moves = np.array([[-0.04, -0.09, -0.15, -0.25, 0.08, 0.2], [-0.05, -0.12, -0.1, -0.3, 0.05, 0.25]])
    found, steep = engine.sloping(moves, np.eye(2), width)
    assert found["adl_volume"].max() > 0
    assert found["fund_low"].min() < 1 < found["fund_low"].max()
    for a in range(2):
        up, down = (engine.sloping(moves + sign * step * np.eye(2)[:, [a]], np.eye(2), width)[0] for sign in (1, -1))
        for name in found:
            slope = (up[name] - down[name]) / (2 * step)
            assert steep[name][..., a] == pytest.approx(slope, rel=0.1, abs=0.02 * np.abs(slope).max()), name


def test_smooth_measures_go_to_those_of_the_engine(crowd_test):
    engine = crowd_test._engine(Levers())
    moves = np.array([[-0.04, -0.09, -0.15, -0.25, 0.08, 0.2]] * 2)
    exact = engine.measured(moves)["volume"]
    off = [np.max(np.abs(engine.sloping(moves, np.eye(2), w)[0]["volume"] / exact - 1)) for w in (0.03, 0.01, 0.001)]
    assert off[2] < off[1] < off[0]
    assert off[2] < 0.1


def test_a_run_of_what_was_found_reaches_the_target(crowd_test):
    """With books four times as thin and half the money: the config that `changed` gives, through its own tables."""
    levers = Levers(depth=4, fund=0.5)
    found = crowd_test.find(crowd_test.target(exhausts="one/main"), levers, days=0)
    built = build(changed(crowd_test.run, found))
    world, ladders, shock = on_device(built)
    paths = shock.paths(path_keys(jnp.uint32(0), jnp.int32(0), reverse_search.TOGETHER * 16))
    measured = jax.device_get(reverse_search._MEASURES(paths, ladders, world, None))
    assert measured["fund_low"].max() <= 1
    assert measured["fund_low"][0, 0] == pytest.approx(found.reached, abs=100)
    as_is = changed(crowd_test.run, replace(found, levers=Levers()))
    assert as_is.venues == crowd_test.run.venues and as_is.overlays == crowd_test.run.overlays


def test_a_frontier_says_where_there_is_nothing_to_find(crowd_test):
    told = crowd_test.frontier(crowd_test.target(exhausts="one/main"), "fund", [0.5, 1.0, 1e4], days=0)
    small, usual, large = told.values()
    assert small.log_density > usual.log_density
    assert isinstance(large, InputError)
    assert "exhaustion of one/main comes by no move of at most 60 %" in str(large)
    assert "200 bn USD" in str(large)


def test_a_target_that_is_there_already_is_refused(crowd_test):
    with pytest.raises(InputError, match="comes without any shock"):
        crowd_test.find(crowd_test.target(exhausts="one/main"), Levers(fund=1e-8), days=0)


def test_days_of_the_model_that_go_as_far(tmp_path):
    """One asset counts: a window of five minutes of a Brownian day; by chance of the largest of overlapping windows,
    between that of one window and of all of them."""
    run = book(tmp_path, [(0, K, 1.2 * K)])
    test = Reverse(run, minutes=MINUTES, device="cpu")
    found = test.find(test.target(volume=0.5 * 90 * K), days=1024)
    one = np.exp(found.log_chance)
    assert found.per_day is not None
    assert found.per_day.high > one
    assert found.per_day.low < 288 * one
    assert found.years == pytest.approx(DAYS / one / 365.25)


def test_one_account_of_a_market_has_the_money_of_those_it_stands_for():
    rows = positions_of([(0, 0, K, 100.0, 10 * K, 2), (0, 0, 3 * K, 90.0, 20 * K, 1), (0, 1, -K, 100.0, 9 * K, 1)], 0)
    made = concentrated(AllAccounts(rows, None, None), 0.25, 2)
    after = made.ladder
    assert len(after) == 4
    assert made.row is not None
    assert list(made.row) == [0, 1, 2, 0]
    assert after.quantity[3] == pytest.approx(0.25 * 5 * K)
    assert after.margin[3] == pytest.approx(0.25 * 40 * K)
    for of in (lambda x: x.quantity, lambda x: x.quantity * x.entry_price, lambda x: x.margin):
        assert np.sum(after.count * of(after)) == pytest.approx(np.sum(rows.count * of(rows)))
    assert concentrated(AllAccounts(rows, None, None), 0.0, 2).ladder is rows


def test_concentration_that_is_liquidated_at_the_start_is_refused(crowd_test):
    tiers = [{"floor_usd": 0, "rate": 0.01}, {"floor_usd": 1e6, "rate": 0.5}]
    venues = {"one": crowd_test.run.venues["one"].model_dump(mode="json")}
    for of in venues["one"]["markets"].values():
        of["tiers"] = tiers
    run = Run.model_validate({**crowd_test.run.model_dump(mode="json"), "venues": venues})
    # Accounts of more than a million would be liquidated too: only small ones are left.
    small = positions_of([(0, 0, 1e3, 100.0, 1e4, 100)])
    write_positions(Path(str(run.portfolio.positions)).with_name("small.parquet"), small, ["one"], ["A", "B"])
    portfolio = run.portfolio.model_copy(
        update={"positions": str(Path(str(run.portfolio.positions)).with_name("small.parquet"))}
    )
    test = Reverse(run.model_copy(update={"portfolio": portfolio}), minutes=MINUTES, device="cpu")
    with pytest.raises(InputError, match=r"concentration is 0\.9, expected less"):
        test.find(test.target(volume=1e6), Levers(concentration=0.9))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "the target is missing, expected exactly one of"),
        ({"volume": 1e6, "adl": "one"}, "the target is --adl and --volume, expected exactly one of"),
        ({"volume": -1.0}, "--volume is -1, expected a number above 0"),
        ({"exhausts": "one/other"}, "--exhausts is 'one/other', expected a fund of the run .one/main."),
        ({"adl": "two"}, "--adl is 'two', expected a venue of the run .one."),
    ],
)
def test_targets_that_make_no_sense_are_refused(tmp_path, asked, message):
    with pytest.raises(InputError, match=message):
        target_of(book(tmp_path, [(0, K, 10 * K)]), **asked)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": 7}, "--minutes is 7, expected .* whole steps of 300 s"),
        ({"minutes": 0}, "--minutes is 0, expected"),
        ({"within": 1.0}, "--within is 1, expected a share between 0 and 1"),
    ],
)
def test_windows_that_make_no_sense_are_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        Reverse(book(tmp_path, [(0, K, 10 * K)]), **({"minutes": MINUTES} | given))


@pytest.mark.parametrize(
    ("levers", "message"),
    [
        (Levers(depth=0.5), "depth is 0.5"),
        (Levers(fund=0), "fund is 0"),
        (Levers(concentration=1), "concentration is 1"),
    ],
)
def test_levers_that_make_no_sense_are_refused(crowd_test, levers, message):
    with pytest.raises(InputError, match=message):
        crowd_test.find(crowd_test.target(volume=1e6), levers)


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_the_command_prints_and_writes_what_it_found(tmp_path, liqstress: Command):
    run = crowded(tmp_path)
    config = tmp_path / "run.toml"
    config.write_text(as_toml(run.model_dump(mode="json", exclude_none=True)))
    words = ("reverse", config, "--exhausts", "one/main", "--minutes", 15, "--device", "cpu")
    said = liqstress(*words, "--shock", tmp_path / "shock.toml", "--csv", tmp_path / "one.csv")
    assert said.code == 0, said.err
    for text in ("the most plausible move to exhaustion of one/main", "lowest equity of one/main", "simulated days"):
        assert text in said.out
    row = table(tmp_path / "one.csv")[0]
    written = tomllib.loads((tmp_path / "shock.toml").read_text())
    assert written["moves"]["A"] == [pytest.approx(float(row["move_A"]), rel=1e-6)]
    said = liqstress(*words, "--against", "depth", "--values", "1,3", "--csv", tmp_path / "all.csv",
                     "--picture", tmp_path / "frontier.png")  # fmt: skip
    assert said.code == 0, said.err
    assert [line["value"] for line in table(tmp_path / "all.csv")] == ["1.0", "3.0"]
    assert (tmp_path / "frontier.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--volume", "1e6", "--picture", "x.png"), "--picture shows a frontier"),
        (("--volume", "1e6", "--against", "depth", "--values", "1,x"), "--values is '1,x', expected numbers"),
        (("--volume", "1e6", "--against", "depth", "--shock", "x"), "--shock writes one move"),
        ((), "the target is missing"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, liqstress: Command, words, message):
    config = tmp_path / "run.toml"
    config.write_text(as_toml(crowded(tmp_path).model_dump(mode="json", exclude_none=True)))
    said = liqstress("reverse", config, "--minutes", 15, *words)
    assert said.code == 2
    assert message in said.err


def test_sampling_of_the_run_does_not_count(liqstress: Command):
    """The tilts of this config are of another law than the shock that is put in its place, which has no density."""
    shock = ROOT / "configs" / "scenarios" / "bates.toml"
    said = liqstress("reverse", ROOT / "configs" / "rare.toml", "--volume", "1e8", "--set", f"shock={shock}")
    assert said.code == 2
    assert "shock is of kind 'bates', for whose moves no density is known" in said.err
