"""Stop orders, support levels, top-ups and wider margins, against the slow twin on small books.

Every trigger has a rung of its own. Where one rate of maintenance holds, bankruptcies among stop orders and the shift
of wider margins are exact too, and so is the comparison, to 1e-7 of the run's volume for money and 1e-6 for all else.
`accounts_liquidated` is not compared where a jump goes past stops: of the accounts of one ladder that end in a round,
as large a share counts as of their coins.

What a population costs in accuracy is in `test_against_twin.py`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
from reference.bridge import HOURLY, OF_LOSSES, engine, twin_of, watch_as_often
from reference.small import crash, crowd, market, plateaus, pool, positions_of, run_of, two_way, venue, write_positions

from stress.build import Built, build
from stress.config import Run
from stress.portfolio import Positions

PATHS, STEPS = 4, 120
ASSETS = {"A": 0.025, "B": 0.03}
MONEY = {
    "liquidation_volume", "stop_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low",
    "adl_volume", "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume",
    "fund_drawdown",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Case:
    """A world, and what walks through it."""

    behaviour: dict[str, Any] = field(default_factory=dict)
    market: dict[str, Any] = field(default_factory=dict)
    venue: dict[str, Any] = field(default_factory=dict)
    overlays: tuple[dict[str, Any], ...] = ()
    move: tuple[float, float] = (0.9, 0.9)
    """That trips the breakers: a pause at the first venue, margins of twice the maintenance at the second."""
    impact: float = 0.01
    path: Any = two_way
    leverages: tuple[float, ...] = (5.3, 8.3, 12.7, 21.0)
    """Over the accounts in turn: with at most six, those that a jump takes past their stops are known exactly."""
    differs: tuple[str, ...] = ()
    layers: str = "book"


def stops(adoption: float, nearest: float, farthest: float) -> dict[str, Any]:
    return {"stop_losses": {"adoption": adoption, "nearest": nearest, "farthest": farthest}}


def lasting(kind: str, start: float, minutes: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "start_minutes": start, "minutes": minutes} | more


def support(move: float, usd: float, asset: str = "A", **more: Any) -> dict[str, Any]:
    return {"kind": "support", "asset": asset, "move": move, "usd": usd} | more


FAR = support(9, 1e-3, "B", width=1e-6, venues=["two"])
IDLE = [lasting("outage", STEPS - 1, 1, venue="one"), FAR, FAR]
"""Of the last step, and where no price gets: they are there so that one program serves all cases."""
SHORT_BOOK = {"take_bound_bps": 30}


def slide(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices of two assets that fall by a third, a little in every step [step, A, path]."""
    fall = np.linspace(0, np.log(2 / 3), steps)[:, None, None] * rng.uniform(0.8, 1.1, paths)
    return fall * np.array([1.0, 1.1])[:, None]


FUNDING = {"interval_hours": 0.25, "interest": 1e-4, "clamp": 5e-4, "cap": 1e-3, "source": "made up"}
TIERS = {"tiers": [{"floor_usd": 0, "rate": 0.01}, {"floor_usd": 1e6, "rate": 0.02}]}
SIXTY = stops(0.5, 0.6, 0.6)
COUNTED = ("accounts_liquidated",)
CASES = {
    "stops": Case(SIXTY, differs=COUNTED),
    "stops, spread": Case(stops(0.5, 0.5, 0.9), leverages=(12.0,), differs=COUNTED),
    "stops, all layers": Case(
        SIXTY,
        SHORT_BOOK | {"auction_usd_per_hour": 2e6, "unwind_usd_per_minute": 3e5},
        {"pools": [pool(1e7, 1)], "liquidation_fee_bps": 50},
        path=crash,
        differs=COUNTED,
        layers="book auction takeover adl",
    ),
    "stops, a pool that is exhausted": Case(
        SIXTY,
        venue={"pools": [pool(1e5)], "adl": {"ranking": "pro_rata", "close_at": "mark", "drawdown_window_hours": 8}},
        path=crash,
        differs=COUNTED,
        layers="book adl",
    ),
    "stops and a queue": Case(
        SIXTY,
        {"throughput_usd_per_minute": 5e6},
        impact=0,
        path=plateaus,
        differs=("fund_low", "fund_drawdown", *COUNTED),
    ),
    "stops where a venue stands still": Case(
        SIXTY,
        overlays=(lasting("slowdown", 15, 30, venue="one", share=0.0),),
        differs=(*COUNTED, "fund_low", "fund_drawdown"),
    ),
    "stops in a pause": Case(SIXTY, move=(0.1, 0.9), impact=0, differs=COUNTED),
    "stops and funding": Case(stops(0.5, 0.4, 0.4), venue={"funding": FUNDING}, differs=COUNTED),
    "stops and brackets, no jumps": Case(
        stops(0.5, 0.3, 0.7), TIERS | SHORT_BOOK, path=slide, leverages=(), layers="book adl"
    ),
    "a support level and a resistance": Case(
        {}, overlays=(support(-0.08, 3e7), support(0.07, 2e7, width=0.02, venues=["one"])), leverages=()
    ),
    "stops and a support level": Case(SIXTY, overlays=(support(-0.08, 3e7),), differs=COUNTED),
    "top-ups": Case({"top_ups": {"share": 0.4, "multiple": 0.5}}, leverages=()),
    "top-ups and stops": Case(
        SIXTY | {"top_ups": {"share": 0.4, "multiple": 0.5}}, leverages=(5.3, 12.7), differs=COUNTED
    ),
    "wider margins": Case({}, move=(0.9, 0.1), impact=0, leverages=()),
    "wider margins and stops": Case(SIXTY, move=(0.1, 0.1), differs=COUNTED),
}


def built_of(case: Case, folder) -> tuple[Run, Built, Positions, np.ndarray]:
    """A run, what is built of it, its accounts and the path."""
    rng = np.random.default_rng(1)
    rows = crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)], 100.0, each=8)
    if case.leverages:
        turns = itertools.cycle(case.leverages)
        rows = [(*row[:4], abs(row[2]) * 100 / leverage, row[5]) for row, leverage in zip(rows, turns, strict=False)]
    positions = positions_of(rows, ballast=0)
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    places = [venue(name, {a: market(**case.market) for a in ASSETS}, **case.venue) for name in ("one", "two")]
    breaker = {"minutes": 3, "pause_minutes": 7.5}
    places[0]["breaker"] = breaker | {"move": case.move[0]}
    places[1]["breaker"] = breaker | {"move": case.move[1], "margin_times": 2.0}
    behaviour = {"behaviour": case.behaviour} if case.behaviour else {}
    off = [*case.overlays, *IDLE]
    run = run_of(places, ASSETS, file, impact={"i_ref": case.impact}, overlays=off, **behaviour)
    built = build(run)
    assert built.book.exact
    return run, built, positions, case.path(rng, STEPS, PATHS)


def simulated(case: Case, folder) -> tuple[dict, dict]:
    """Outputs of both engines."""
    run, built, positions, path = built_of(case, folder)
    return engine(path, built), twin_of(path, run, positions, built)


@pytest.mark.parametrize("name", CASES)
def test_small_book_is_exact(name, tmp_path, monkeypatch):
    watch_as_often(monkeypatch)
    case = CASES[name]
    ours, theirs = simulated(case, tmp_path)
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3)) + theirs["stop_volume"].sum(axis=(0, 1, 2, 3))
    names = ("book", "auction", "takeover", "adl", "remainder")
    absorbed = theirs["absorbed_volume"].sum(axis=(0, 1, 2, 4))
    got = {n for n, usd in zip(names, absorbed, strict=True) if usd > 1e6}
    wrong = [] if got == set(case.layers.split()) else [f"layers {got}"]
    for output in set(HOURLY) - {"adl_accounts", *OF_LOSSES} - set(case.differs):
        allowed = 1e-7 * volume if output in MONEY else 1e-6
        apart = np.abs(ours[output] - theirs[output])
        both_nan = np.isnan(ours[output]) & np.isnan(theirs[output])
        if not np.all(both_nan | (apart <= allowed)):
            wrong.append(f"{output}: {np.nanmax(apart):.3g} of {np.nanmax(np.abs(theirs[output])):.3g}")
    assert (theirs["stop_volume"].sum() > 1e6) == ("stop" in name or "level" in name)
    assert not wrong, wrong
    assert np.max(ours["ledger_residual"]) < 1e-12


def test_stops_alone_leave_the_venues_money_alone(tmp_path):
    """Everybody has a stop and prices fall little by little: nobody is liquidated, and no fund gains or loses."""
    case = Case(stops(1.0, 0.3, 0.9), {"auction_usd_per_hour": 1e9}, {"liquidation_fee_bps": 50}, path=slide, impact=0)
    _, built, _, path = built_of(case, tmp_path)
    ours = engine(path, built)
    assert ours["stop_volume"].sum(axis=(0, 1, 2, 3)).min() > 5e7
    for name in ("liquidation_volume", "accounts_liquidated", "deficit", "surplus", "fund_drawdown", "adl_volume"):
        assert np.all(ours[name] == 0), name
    assert np.all(ours["fund_equity"] == 1e9)


def test_stop_volume_is_in_proportion_to_adoption(tmp_path):
    few, many = (built_of(Case(stops(x, 0.6, 0.6), impact=0, path=slide), tmp_path) for x in (0.2, 0.6))
    volumes = [engine(path, built)["stop_volume"].sum(axis=(0, 1, 2, 3)) for _, built, _, path in (few, many)]
    np.testing.assert_allclose(volumes[1], 3 * volumes[0])
