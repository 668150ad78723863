"""A peer: the liquidation engine of the package `lrvx`, with the positions and marks that we have, on one core each.

One asset at one venue, half of the positions long; no order moves a price, and nothing behind the book has anything to
do. Both see equal marks, and close a position at the first one at which its equity is at most its maintenance margin.
Counts of every hour must be equal before anything is timed. The peer follows one path, and has funds and positions to
keep; we follow a block of equal paths, with the program of a run, whose time does not depend on how many positions are
in its tables.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.bench import finish, needs_checkout
from stress.bench_given import prices
from stress.bench_turns import Spread, in_turns
from stress.bench_twin import SOURCES
from stress.config import Run
from stress.devices import Kind, choose
from stress.run import Simulation
from stress.spec import BLOCK, RunError

if TYPE_CHECKING:
    from rich.console import Console

SIZES = 1_000, 10_000, 100_000
"""Positions."""
LEVELS = 250
"""Leverages of each side; few enough for each to have a place of its own in our tables."""
START, RATE, AMPLE = 100.0, 0.01, 1e13
"""Price [USD]; maintenance margin [1]; what is never used up [USD]."""
VOLATILITY = 0.06
"""Of the day [1]."""


@dataclass(frozen=True)
class Peer:
    """What was measured of both."""

    positions: int
    liquidated: int
    """The same number at both."""
    ours: float
    """Positions x steps x paths a second, on one device."""
    theirs: float
    to_lrvx: Spread
    """Their time of a position-step over ours."""

    def row(self) -> dict[str, Any]:
        """For a machine."""
        return {"case": f"lrvx, {self.positions} positions", "ratio_to_lrvx": self.to_lrvx.median} | asdict(self)


def peers(*, quick: bool = True, device: Kind = "auto", sizes: tuple[int, ...] = SIZES) -> list[Peer]:
    """Time each number of positions; nothing where `lrvx` is not installed or devices are no CPU.

    Args:
        quick: A block of paths over 6 hours in 3 turns; otherwise over a day in 7.
        device: As in `stress.run.run`.
        sizes: Numbers of positions.

    Raises:
        InputError: There is no checkout around this package, or no such device.
        RunError: Counts differ, or `lrvx` does not run.
    """
    needs_checkout()
    hours, turns = (6, 3) if quick else (24, 7)
    if importlib.util.find_spec("lrvx") is None or choose(device).kind != "cpu":
        return []
    return [_time(size, BLOCK, hours, turns) for size in sizes]


def _time(size: int, paths: int, hours: int, turns: int) -> Peer:
    devices = choose("cpu")
    devices = replace(devices, all=devices.all[:1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "positions.csv"
        levels = _levels(size)
        _write(file, levels)
        config = _config(file, paths, hours)
        simulation = Simulation.of(config, devices)
        log = Simulation.of(config, devices, prices).chunk(0)[0, :, 0]
    marks = START * np.exp(log.astype(np.float64))
    ours = simulation.chunk(0)["accounts_liquidated"][..., 0]
    theirs = _lrvx(levels, marks)[1].reshape(hours, -1).sum(axis=1)
    if not (ours == theirs).all():
        raise RunError(
            f"lrvx liquidates {theirs.sum()} of {size} positions and we {ours.mean(axis=0).sum():g}, or at other "
            "hours; nothing was timed."
        )
    contestants = {"ours": lambda: finish(simulation), "theirs": lambda: _lrvx(levels, marks)[0]}
    seconds = in_turns(contestants, turns)
    ticks = size * len(marks)
    return Peer(
        positions=size,
        liquidated=int(theirs.sum()),
        ours=ticks * paths / float(np.median(seconds["ours"])),
        theirs=ticks / float(np.median(seconds["theirs"])),
        to_lrvx=Spread.of(seconds["theirs"] * paths / seconds["ours"]),
    )


def _levels(size: int) -> list[tuple[float, float, int]]:
    """Quantity, margin of it [USD] and copies of every position, longs and shorts in turn."""
    margins = np.linspace(1.2 * RATE, 0.3, LEVELS)
    copies = size // (2 * LEVELS)
    if 2 * LEVELS * copies != size:
        raise ValueError(f"expected a multiple of {2 * LEVELS} positions, and not {size}")
    return [(sign * 0.5, float(0.5 * START * margin), copies) for margin in margins for sign in (1, -1)]


def _write(file: Path, levels: list[tuple[float, float, int]]) -> None:
    rows = [f"here,{i},A,{q},{START},{margin!r},isolated,{n}" for i, (q, margin, n) in enumerate(levels)]
    file.write_text("\n".join(["venue,account,asset,quantity,entry_price,margin,mode,count", *rows]), encoding="utf-8")


def _config(file: Path, paths: int, hours: int) -> Run:
    """A market without impact or limits, its mark the index: one walk by minutes, the same on every path."""
    steps = np.random.default_rng(1).normal(0, VOLATILITY / np.sqrt(1440), 60 * hours)
    moves = np.expm1(np.cumsum(steps))
    source = "made up"
    market = {
        "tiers": [{"floor_usd": 0, "rate": RATE}],
        "tiers_source": source,
        "adv_usd": AMPLE,
        "take_bound_bps": 5000,
        "throughput_usd_per_minute": AMPLE,
        "auction_usd_per_hour": 0,
        "auction_discount_bps": 0,
        "unwind_usd_per_minute": 0,
        "source": source,
    }
    venue = {
        "name": "here",
        "source": source,
        "liquidation_fee_bps": 0,
        "fee_in_trigger": False,
        "surplus_to": "pool",
        "mark": "index",
        "staging": {"kind": "full"},
        "adl": {"ranking": "queue", "close_at": "bankruptcy", "leftover": False},
        "funding": {"interval_hours": 1000, "interest": 0, "clamp": 0, "cap": 0.01, "source": source},
        "pools": [{"name": "main", "equity_usd": AMPLE, "takeover_multiple": 0, "source": source}],
        "markets": {"A": market},
    }
    data = {
        "name": "peer",
        "paths": paths,
        "chunk": paths,
        "horizon_hours": hours,
        "barrier_correction": False,
        "venues": {"here": venue},
        "assets": {"A": {"daily_volatility": VOLATILITY}},
        "prices": {"start": {"A": START}},
        "portfolio": {"positions": str(file)},
        "shock": {"kind": "prescribed", "minutes": list(range(1, len(moves) + 1)), "moves": {"A": moves.tolist()}},
        "impact": {"i_ref": 0.0},
    }
    return Run.model_validate(data)


def _lrvx(levels: list[tuple[float, float, int]], marks: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds for all marks, opening not counted, and how many positions each liquidates."""
    given = {"rate": RATE, "fund": AMPLE, "start": START, "positions": levels, "marks": marks.tolist()}
    call = [sys.executable, str(SOURCES / "peer_lrvx.py")]
    said = subprocess.run(call, input=json.dumps(given), capture_output=True, text=True)
    if said.returncode:
        raise RunError(f"lrvx failed: {(said.stderr.strip() or '?').splitlines()[-1]}. Mend or uninstall it.")
    answer = json.loads(said.stdout)
    return answer["seconds"], np.array(answer["liquidated"])


def print_peers(timed: list[Peer], out: Console) -> None:
    """Print what was timed, or what is missing."""
    if not timed:
        out.print(
            "Without lrvx: timed beside a CPU, where it is installed (pip install 'liqstress[bench]').", markup=False
        )
    for each in timed:
        ratio = each.to_lrvx
        out.print(
            f"lrvx, {each.positions:,} positions of one asset, of which both liquidate {each.liquidated:,}: "
            f"{each.theirs:.2g} position-steps/s, ours {each.ours:.2g} on one core; "
            f"its time over ours {ratio.median:.3g} ({ratio.least:.3g} to {ratio.most:.3g})."
        )
