"""Rules and parameters of a run as the kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from stress_kernels.ladder import Ladders
from stress_kernels.pytree import host
from stress_kernels.world import (
    ADL_BANKRUPTCY,
    ADL_INDEX,
    ADL_MARK,
    ADL_PRO_RATA,
    ADL_QUEUE,
    ADL_WATER_FILLING,
    MARK_INDEX,
    MARK_INDEX_AVERAGE,
    MARK_LAST,
    MARK_MEDIAN,
    Impact,
    Rules,
    World,
)

from stress.behaving import behaviour
from stress.conditions import conditions
from stress.config import Run
from stress.cross import Currencies
from stress.money import breakers, transfers, vaults, volume
from stress.recorded import Replay

_DAY = 86400.0
BARRIER = 0.5826
"""Of sigma sqrt(dt), by which triggers are moved for what a path does between its steps [1]."""
_MARKS = {"median": MARK_MEDIAN, "index_average": MARK_INDEX_AVERAGE, "last": MARK_LAST, "index": MARK_INDEX}
_CLOSE_AT = {"bankruptcy": ADL_BANKRUPTCY, "mark": ADL_MARK, "index": ADL_INDEX}
_RANKINGS = {"queue": ADL_QUEUE, "pro_rata": ADL_PRO_RATA, "water_filling": ADL_WATER_FILLING}
_BLOCK_SECONDS = 900.0


def world_of(run: Run, held: np.ndarray, money: Currencies | None, lanes: int, fresh: Ladders | None) -> World:
    """The world of a run.

    Args:
        run: The config.
        held: Coins of all accounts at the start, (v a s).
        money: Currencies of the accounts, where coins are anybody's money.
        lanes: Paths that go through a round together.
        fresh: Ladders of a cohort, where there is an inflow.
    """
    dt, dtype = float(run.step_seconds), run.dtype
    names, assets = list(run.venues), list(run.assets)

    def market(field: str, missing: float = 0.0, scale: float = 1.0) -> Any:
        table = np.full((len(names), len(assets)), missing)
        for i, name in enumerate(names):
            for asset in run.markets(name):
                table[i, assets.index(asset)] = getattr(run.venues[name].markets[asset], field) * scale
        return host(table, dtype)

    pools = [(i, pool) for i, name in enumerate(names) for pool in run.venues[name].pools]
    first = np.cumsum([0, *(len(run.venues[name].pools) for name in names)])
    behind = np.zeros((len(pools), len(names), len(assets)))
    for i, name in enumerate(names):
        for asset in run.markets(name):
            behind[first[i] + run.venues[name].pool_of(asset), i, assets.index(asset)] = 1.0
    rules = _rules(run, dt)
    sigma = volatility(run)
    shift = [BARRIER * run.shock.diffusion(asset) * np.sqrt(dt / _DAY) for asset in assets]
    block_steps = max(1, round(_BLOCK_SECONDS / dt))
    return World(
        impact=_impact(run, sigma, dt),
        rules=rules,
        sigma=host(sigma, dtype),
        barrier_shift=host(shift if run.barrier_correction else np.zeros(len(assets)), dtype),
        adv=market("adv_usd", missing=1.0),
        adv_global=host(volume(run), dtype),
        take_bound=market("take_bound_bps", scale=1e-4),
        throughput=market("throughput_usd_per_minute", scale=dt / 60),
        auction=market("auction_usd_per_hour"),
        discount=market("auction_discount_bps", scale=1e-4),
        unwind=market("unwind_usd_per_minute", scale=dt / 60),
        block=_block(run, held),
        behind=host(behind, dtype),
        pool_venue=host([i for i, _ in pools], np.int32),
        pool_cash=host([pool.equity_usd for _, pool in pools], dtype),
        takeover_multiple=host([pool.takeover_multiple for _, pool in pools], dtype),
        inverse=None if money is None else host(money.inverse),
        conditions=conditions(run, coins=money is not None),
        vaults=vaults(run),
        transfers=transfers(run),
        breakers=breakers(run),
        behaviour=behaviour(run, fresh),
        steps_per_hour=3600 // run.step_seconds,
        hours=run.horizon_hours,
        rounds=run.rounds,
        lanes=lanes,
        window=int(np.max(rules.mark_window)),
        blocks=int(np.max(rules.adl_blocks)),
        block_steps=block_steps,
        five_minutes=max(1, round(300 / dt)),
    )


def volatility(run: Run) -> np.ndarray:
    """Daily, of each asset [1]."""
    return np.array([asset.daily_volatility for asset in run.assets.values()])


def _impact(run: Run, sigma: np.ndarray, dt: float) -> Impact:
    spec, size = run.impact, len(sigma)
    replay = run.shock if isinstance(run.shock, Replay) else None
    numbers = {
        "coefficient": spec.i_ref * (sigma / 0.025) * 100.0**spec.delta,
        "delta": spec.delta,
        "rho": spec.rho,
        "contagion": spec.contagion * (1 - np.eye(size)),
        "decay_local": 2.0 ** (-dt / spec.half_life_local_seconds),
        "decay_global": 2.0 ** (-dt / spec.half_life_global_seconds),
        "depth": float(spec.depth),
        "index_weight": 0.0 if replay is not None and replay.pin_index else 1.0,
    }
    return Impact(**{name: host(value, run.dtype) for name, value in numbers.items()})


def _rules(run: Run, dt: float) -> Rules:
    venues, dtype = list(run.venues.values()), run.dtype
    block = max(1, round(_BLOCK_SECONDS / dt)) * dt
    share = [np.inf if v.adl.drawdown_share is None else v.adl.drawdown_share for v in venues]
    return Rules(
        fee=host([v.liquidation_fee_bps / 1e4 for v in venues], dtype),
        surplus_to_pool=host([v.surplus_to == "pool" for v in venues]),
        mark=host([_MARKS[v.mark] for v in venues], np.int32),
        mark_window=host([max(1, round(v.mark_window_minutes * 60 / dt)) for v in venues], np.int32),
        adl_ranking=host([_RANKINGS[v.adl.ranking] for v in venues], np.int32),
        adl_leftover=host([v.adl.leftover for v in venues]),
        adl_close=host([_CLOSE_AT[v.adl.close_at] for v in venues], np.int32),
        adl_share=host(share, dtype),
        adl_blocks=host([max(1, round(v.adl.drawdown_window_hours * 3600 / block)) for v in venues], np.int32),
        straight_to_adl=host([v.adl.straight_to_adl for v in venues]),
        funding_every=host([max(1, round(v.funding.interval_hours * 3600 / dt)) for v in venues], np.int32),
        funding_interest=host([v.funding.interest for v in venues], dtype),
        funding_clamp=host([v.funding.clamp for v in venues], dtype),
        funding_cap=host([v.funding.cap for v in venues], dtype),
        funding_divisor=host([v.funding.divisor for v in venues], dtype),
    )


def _block(run: Run, held: np.ndarray) -> Any:
    """Hedgers' coins, over the markets in proportion to the accounts' longs."""
    longs = held[:, :, 0]
    share = longs / longs.sum() if longs.sum() > 0 else np.zeros_like(longs)
    return host(run.portfolio.block_usd * share, run.dtype)
