"""What the kernel on the chip reads and writes: sizes, parameters and tables, boards between its threads, reports.

Inside the kernel every field is a reference to memory. Numbers of markets, sides and pools are stacked one after the
other: market v A + a, side 2 (v A + a) + s.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from stress_kernels.ladder import Ladders
from stress_kernels.pytree import pytree, static
from stress_kernels.state import Record
from stress_kernels.world import World

Place = Any
"""An array outside of the kernel, a reference to one inside."""


@pytree
class Sizes:
    """What a compiled kernel cannot change."""

    venues: int = static()
    assets: int = static()
    pools: int = static()
    lanes: int = static()
    """Paths of a block, and orders that are worked on together; a power of two."""
    rungs: int = static()
    """Rows of a ladder's table."""
    cells: int = static()
    window: int = static()
    """Longest of the marks' averages [steps]."""
    lag: int = static()
    """Five minutes, or the whole time where that is shorter [steps]."""
    rounds: int = static()
    hours: int = static()
    steps_per_hour: int = static()
    interpret: bool = static()
    """Whether the block is one array program, in which no thread has to wait for another."""

    @property
    def markets(self) -> int:
        """Over all venues."""
        return self.venues * self.assets

    @property
    def sides(self) -> int:
        """Over all markets."""
        return 2 * self.markets


@pytree
class Tables:
    """Parameters and tables of a run."""

    impact: Place
    """rho, delta, depth, index weight, decay of local and of global imbalances, spread of the ladders (7)."""
    coefficient: Place
    """(a)"""
    contagion: Place
    """(a a)"""
    sigma: Place
    barrier: Place
    """Shift of the triggers, (a) [log]."""
    adv_global: Place
    adv: Place
    """(m)"""
    bound: Place
    throughput: Place
    behind: Place
    """(f m)"""
    share: Place
    """Fall from the peak that starts deleveraging, (f) [1]."""
    mark: Place
    """Rule, (v)."""
    average: Place
    """Window, (v) [steps]."""
    fee: Place
    keeps: Place
    """1 where the pool gets what is left of an account, (v)."""
    every: Place
    """Steps between payments of funding, (v)."""
    interest: Place
    clamp: Place
    cap: Place
    divisor: Place
    rows: Place
    """(k rung column), flat."""
    log_margin: Place
    """(k c)"""
    partial: Place
    """1 for a class of partial closes, (k c)."""
    trigger_rate: Place
    """(k)"""
    cash: Place
    """Of pools, (f) [USD]."""
    traders: Place
    """Contracts by side, (k)."""
    rest: Place
    """(m)"""
    gross: Place
    """Opening stocks of cash and coins (2)."""


@pytree
class Boards:
    """What the threads of a block tell each other, and what they cannot keep in registers."""

    ring: Place
    """Past bases, (window m p) [log]."""
    orders: Place
    """Numbers of the sides on which anything is swept: side x lanes + path in the block."""
    mark: Place
    u_local: Place
    shift: Place
    """(m p)"""
    index: Place
    u_global: Place
    depth: Place
    """(a p)"""
    low: Place
    high: Place
    """Places on ladders between which a side is swept, (k p)."""
    usd: Place
    """What was closed [USD], and so on, (k p); the last row is for threads without an order."""
    received: Place
    deficit: Place
    quantity: Place
    proceeds: Place
    accounts: Place
    beyond: Place
    """1 where the book does not take the whole order."""


@pytree
class Report:
    """What the kernel says of every hour (hour ... p), and of the whole time."""

    volume: Place
    """By side [USD]."""
    first_round: Place
    """By market [USD]."""
    accounts: Place
    """By venue."""
    deficit: Place
    """By pool [USD]."""
    surplus: Place
    traders: Place
    """At the end of the hour, as are all stocks; high and low parts of sums, (hour 2 k p)."""
    rest: Place
    """(hour 2 m p)"""
    traders_cash: Place
    """(hour 2 v p)"""
    rest_cash: Place
    gross: Place
    """Of cash and of coins, (hour 2 p)."""
    cash: Place
    """(hour 2 f p)"""
    fund_low: Place
    index: Place
    mark: Place
    index_low: Place
    index_high: Place
    basis_low: Place
    basis_high: Place
    drawdown: Place
    """(f p)"""
    unknown: Place
    """1 where a path has met something that the kernel does not do, (1 p)."""


def sizes_of(ladders: Ladders, world: World, lanes: int, *, interpret: bool) -> Sizes:
    """Sizes of a run."""
    venues, assets = world.adv.shape
    steps = world.hours * world.steps_per_hour
    return Sizes(
        venues=venues,
        assets=assets,
        pools=world.pool_cash.shape[0],
        lanes=lanes,
        rungs=ladders.rows.shape[4],
        cells=ladders.cells,
        window=world.window,
        lag=min(world.five_minutes, steps),
        rounds=world.rounds,
        hours=world.hours,
        steps_per_hour=world.steps_per_hour,
        interpret=interpret,
    )


def tables_of(ladders: Ladders, world: World, record: Record) -> Tables:
    """Tables of a run.

    Args:
        ladders: One of each side.
        world: Rules and parameters.
        record: Before the first step.
    """
    impact, rules, dtype, stocks = world.impact, world.rules, ladders.rows.dtype, record.stocks
    numbers = (impact.rho, impact.delta, impact.depth, impact.index_weight)
    of_steps = (impact.decay_local, impact.decay_global, ladders.spread)
    raw = Tables(
        impact=jnp.stack([jnp.asarray(x, dtype) for x in (*numbers, *of_steps)]),
        coefficient=impact.coefficient,
        contagion=impact.contagion,
        sigma=world.sigma,
        barrier=world.barrier_shift,
        adv_global=world.adv_global,
        adv=world.adv,
        bound=world.take_bound,
        throughput=world.throughput,
        behind=world.behind,
        share=jnp.asarray(rules.adl_share)[world.pool_venue],
        mark=rules.mark,
        average=rules.mark_window,
        fee=rules.fee,
        keeps=jnp.asarray(rules.surplus_to_pool, dtype),
        every=rules.funding_every,
        interest=rules.funding_interest,
        clamp=rules.funding_clamp,
        cap=rules.funding_cap,
        divisor=rules.funding_divisor,
        rows=ladders.rows,
        log_margin=ladders.log_margin,
        partial=jnp.asarray(ladders.partial, dtype),
        trigger_rate=ladders.trigger_rate,
        cash=world.pool_cash,
        traders=stocks.traders.value[..., 0],
        rest=stocks.rest.value[..., 0],
        gross=jnp.stack([stocks.gross_cash[0, 0], stocks.gross_coins[0]]),
    )
    return jax.tree.map(lambda x: jnp.ravel(x), raw)


def boards_of(sizes: Sizes, paths: int, dtype: Any) -> Boards:
    """Shapes of the boards of all blocks."""
    blocks, p = paths // sizes.lanes, paths

    def of(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((*shape, p), dtype)

    markets, assets, sides, answers = of(sizes.markets), of(sizes.assets), of(sizes.sides), of(sizes.sides + 1)
    return Boards(
        ring=of(sizes.window, sizes.markets),
        orders=jax.ShapeDtypeStruct((blocks * (sizes.sides + 1) * sizes.lanes,), jnp.int32),
        mark=markets, u_local=markets, shift=markets,
        index=assets, u_global=assets, depth=assets,
        low=sides, high=sides,
        usd=answers, received=answers, deficit=answers, quantity=answers, proceeds=answers, accounts=answers,
        beyond=answers,
    )  # fmt: skip


def report_of(sizes: Sizes, paths: int, dtype: Any) -> Report:
    """Shapes of the report of all paths."""

    def hourly(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((sizes.hours, *shape, paths), dtype)

    venues, assets, markets, pools = sizes.venues, sizes.assets, hourly(sizes.markets), hourly(sizes.pools)
    return Report(
        volume=hourly(sizes.sides), first_round=markets, accounts=hourly(venues), deficit=pools, surplus=pools,
        traders=hourly(2, sizes.sides), rest=hourly(2, sizes.markets),
        traders_cash=hourly(2, venues), rest_cash=hourly(2, venues), gross=hourly(2), cash=hourly(2, sizes.pools),
        fund_low=pools, index=hourly(assets), mark=markets, index_low=hourly(assets), index_high=hourly(assets),
        basis_low=markets, basis_high=markets,
        drawdown=jax.ShapeDtypeStruct((sizes.pools, paths), dtype),
        unknown=jax.ShapeDtypeStruct((1, paths), dtype),
    )  # fmt: skip


def zeros_like_block(sizes: Sizes, dtype: Any) -> Array:
    """Nothing, for each path of a block."""
    return jnp.zeros((sizes.lanes,), dtype)
