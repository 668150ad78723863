"""What the twins of the step are given: the tables of a run, and the prices that our program draws.

They know the order book alone; `book_alone` puts every other layer, and every limit, out of reach.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from stress_kernels.ladder import Ladders
from stress_kernels.world import World

from stress.build import build
from stress.config import Run
from stress.devices import Devices
from stress.run import Simulation

SUMS = "volume", "remainder", "deficit", "surplus"
"""What a twin sums up over the hours."""
_VENUES = "binance", "bybit", "okx"
_ASSETS = "BTC", "ETH", "SOL", "XRP", "DOGE"


class Given(NamedTuple):
    """Input of a twin: numbers and arrays that numba takes as they are; counts are int32, all else is float32.

    Axes: `v a` market, `s` side, `e` entry class, `c` margin class, `p` path.
    """

    steps_per_hour: int
    rounds: int
    cells: int
    """Of the ladders' depth coordinate."""
    window: int
    """Longest of the marks' averages [steps]."""
    lag: int
    """Five minutes, or the whole time where that is shorter [steps]."""
    delta: Any
    rho: Any
    decay_local: Any
    decay_global: Any
    index_weight: Any
    spread: Any
    """Depth at which half of a ladder's cells are used up [log]."""
    deep: Any
    """1 where depth withdraws in a fast market, 0 where it does not."""
    coefficient: Any
    """(a)"""
    contagion: Any
    """(a a)"""
    sigma: Any
    """(a)"""
    shift: Any
    """By how much triggers lie nearer, for what a path does between its steps, (a) [log]."""
    adv: Any
    """(v a) [USD]"""
    adv_global: Any
    """(a) [USD]"""
    bound: Any
    """How far from the mark an order trades at most, (v a) [1]."""
    fee: Any
    """(v)"""
    log_margin: Any
    """ln(bankruptcy price / trigger), (v a s c)."""
    keeps: Any
    """1 where the pool gets what is left of an account, (v)."""
    mark: Any
    """Rule, as numbered in `stress_kernels.world`, (v)."""
    average: Any
    """Window of the mark's average, (v) [steps]."""
    partial: Any
    """1 for a class of partial closes, (v a s c)."""
    rows: Any
    """Cumulative tables of `stress_kernels.ladder`, (v a s e rung column)."""
    log: Any
    """Log of the index without forced orders, (step a p)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Hours, venues, assets, paths."""
        steps, assets, paths = self.log.shape
        return steps // self.steps_per_hour, self.adv.shape[0], assets, paths


def given(config: Run, devices: Devices) -> Given:
    """The input for a run's first chunk.

    Raises:
        ValueError: The run's world has something that the twins leave out.
    """

    built = build(config)
    world, ladders, rules, impact = built.world, built.ladders, built.world.rules, built.world.impact
    left_out = _left_out(world, ladders, built.shock.steps)
    if left_out is not None:
        raise ValueError(f"expected no {left_out}")
    log = np.moveaxis(Simulation.of(config, devices, prices).chunk(0), 0, -1)
    raw = Given(
        steps_per_hour=world.steps_per_hour,
        rounds=world.rounds,
        cells=ladders.cells,
        window=world.window,
        lag=min(world.five_minutes, len(log)),
        delta=impact.delta,
        rho=impact.rho,
        decay_local=impact.decay_local,
        decay_global=impact.decay_global,
        index_weight=impact.index_weight,
        spread=ladders.spread,
        deep=impact.depth,
        coefficient=impact.coefficient,
        contagion=impact.contagion,
        sigma=world.sigma,
        shift=world.barrier_shift,
        adv=world.adv,
        adv_global=world.adv_global,
        bound=world.take_bound,
        fee=rules.fee,
        log_margin=ladders.log_margin[:, :, :, 0, :, 0],
        keeps=rules.surplus_to_pool,
        mark=rules.mark,
        average=rules.mark_window,
        partial=ladders.partial[:, :, :, 0, :, 0],
        rows=ladders.rows,
        log=log,
    )
    return Given(*map(_plain, raw))


def _plain(x: Any) -> Any:
    """A count as it is, whole numbers as int32, other numbers as float32; arrays in the order of their axes."""
    if isinstance(x, int):
        return x
    kind = np.float32 if np.issubdtype(x.dtype, np.floating) else np.int32
    return np.ascontiguousarray(x, kind) if np.ndim(x) else kind(x)


def book_alone() -> dict[str, Any]:
    """Changes to the reference config that put every limit but the order book's depth out of reach."""
    pool = {"name": "main", "equity_usd": 1e13, "takeover_multiple": 0, "source": "made up"}
    funding = {"interval_hours": 1000, "interest": 0, "clamp": 0, "cap": 0.01, "source": "made up"}
    market = {"take_bound_bps": 5000, "throughput_usd_per_minute": 1e15, "auction_usd_per_hour": 0}
    changes: dict[str, Any] = {}
    for venue in _VENUES:
        changes |= {f"venues.{venue}.pools": [pool], f"venues.{venue}.funding": funding}
        changes |= {f"venues.{venue}.adl.leftover": False}
        changes |= {f"venues.{venue}.markets.{asset}.{key}": x for asset in _ASSETS for key, x in market.items()}
    return changes


def leaves_out_nothing(config: Run) -> bool:
    """Whether a run's world is one that the twins know whole."""
    built = build(config)
    return built.accounts is None and _left_out(built.world, built.ladders, built.shock.steps) is None


def _left_out(world: World, ladders: Ladders, steps: int) -> str | None:
    """What of a world the twins leave out."""
    rules = world.rules
    venues = list(range(world.adv.shape[0]))
    found = {
        "exact triggers": bool(ladders.probes),
        "inverse contracts": world.inverse is not None,
        "vaults": world.vaults is not None,
        "transfers between pools": world.transfers is not None,
        "several pools at a venue": list(np.asarray(world.pool_venue)) != venues,
        "auction": bool(np.any(world.auction)),
        "takeover": bool(np.any(world.takeover_multiple)),
        "deleveraging": bool(np.any(rules.adl_leftover)),
        "funding": bool(np.min(rules.funding_every) <= steps),
    }
    return next((what for what, there in found.items() if there), None)


def prices(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The log indices that a run draws."""
    return shock.paths(keys)
