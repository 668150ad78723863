"""What the kernel on the chip reads and writes: sizes, parameters and tables, boards between its threads, reports.

Inside the kernel every field is a reference to memory. A *tile* has the assets of one venue, or of one side of it, by
the paths of a block; as tiles must have a power of two of numbers, assets that are not there fill them up: nobody holds
or trades any. Axes: `v` venue, `s` side, `a` asset of a tile, `f` pool, `k` ladder, `c` margin class, `p` path.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from stress_kernels.ladder import Ladders
from stress_kernels.ledger import Stocks
from stress_kernels.pytree import pytree, static
from stress_kernels.world import World

Place = Any
"""An array outside of the kernel, a reference to one inside."""


@pytree
class Sizes:
    """What a compiled kernel cannot change."""

    venues: int = static()
    assets: int = static()
    width: int = static()
    """Assets of a tile, a power of two."""
    pools: int = static()
    lanes: int = static()
    """Paths of a block, a power of two."""
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
    """Whether a block is one array program, in which no thread has to wait for another."""

    @property
    def rows(self) -> int:
        """Of a board that has one for each side of each market of all tiles (v s a)."""
        return 2 * self.venues * self.width


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
    """(v a)"""
    bound: Place
    throughput: Place
    behind: Place
    """(f v a)"""
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
    trigger_rate: Place
    """(v s a)"""
    traders: Place
    """Contracts at the start, (v s a)."""
    rest: Place
    """(v a)"""
    cash: Place
    """Of pools, (f) [USD]."""
    gross: Place
    """Opening stocks of cash and coins (2)."""
    rows: Place
    """(k rung column), flat; ladders in the order of `Ladders`: venue, asset, side."""
    log_margin: Place
    """(k c), flat."""
    partial: Place
    """1 for a class of partial closes, (k c), flat."""


@pytree
class Boards:
    """What the threads of a block tell each other, and what they cannot keep in registers."""

    ring: Place
    """Past bases, (window v a p) [log]."""
    orders: Place
    """Where anything is swept, one after the other: row of a board x paths of a block + path."""
    mark: Place
    """(row p), with a row for each market (v a)."""
    u_local: Place
    shift: Place
    index: Place
    """(a p)"""
    u_global: Place
    depth: Place
    low: Place
    """Places on ladders between which a side is swept, (row p) with a row for each side (v s a)."""
    high: Place
    usd: Place
    """What was closed there [USD], and so on; the last row is for threads without an order."""
    received: Place
    deficit: Place
    quantity: Place
    proceeds: Place
    accounts: Place
    beyond: Place
    """1 where the book does not take the whole order."""


@pytree
class Report:
    """What the kernel says of every hour (hour ... row p), and of the whole time."""

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
    """By side at the end of the hour, as all stocks; high and low parts of sums, (hour 2 row p)."""
    rest: Place
    """By market."""
    traders_cash: Place
    """By venue."""
    rest_cash: Place
    gross: Place
    """Of cash and of coins, (hour 2 p)."""
    cash: Place
    """Of pools, (hour 2 f p)."""
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
        width=1 << (assets - 1).bit_length(),
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


def tables_of(ladders: Ladders, world: World, opening: Stocks, sizes: Sizes) -> Tables:
    """Tables of a run.

    Args:
        ladders: One of each side.
        world: Rules and parameters.
        opening: Before the first step.
        sizes: Of the run.
    """
    impact, rules, dtype = world.impact, world.rules, ladders.rows.dtype
    numbers = (impact.rho, impact.delta, impact.depth, impact.index_weight)
    of_steps = (impact.decay_local, impact.decay_global, ladders.spread)

    def filled(x: Any, value: float = 0.0) -> Array:
        """Assets of a tile, which come last."""
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, sizes.width - sizes.assets)], constant_values=value)

    def of_sides(x: Any) -> Array:
        return filled(jnp.swapaxes(x, 1, 2))

    return Tables(
        impact=jnp.stack([jnp.asarray(x, dtype) for x in (*numbers, *of_steps)]),
        coefficient=filled(impact.coefficient),
        contagion=filled(filled(impact.contagion).T).T,
        sigma=filled(world.sigma, 1.0),
        barrier=filled(world.barrier_shift),
        adv_global=filled(world.adv_global, 1.0),
        adv=filled(world.adv, 1.0),
        bound=filled(world.take_bound),
        throughput=filled(world.throughput),
        behind=filled(world.behind),
        share=rules.adl_share[world.pool_venue],
        mark=rules.mark,
        average=rules.mark_window,
        fee=rules.fee,
        keeps=rules.surplus_to_pool.astype(dtype),
        every=rules.funding_every,
        interest=rules.funding_interest,
        clamp=rules.funding_clamp,
        cap=rules.funding_cap,
        divisor=rules.funding_divisor,
        trigger_rate=of_sides(ladders.trigger_rate[:, :, :, 0, 0]),
        traders=of_sides(opening.traders.value[..., 0]),
        rest=filled(opening.rest.value[..., 0]),
        cash=world.pool_cash,
        gross=jnp.stack([opening.gross_cash[0, 0], opening.gross_coins[0]]),
        rows=ladders.rows.reshape(-1),
        log_margin=ladders.log_margin.reshape(-1),
        partial=ladders.partial.astype(dtype).reshape(-1),
    )


def boards_of(sizes: Sizes, paths: int, dtype: Any) -> Boards:
    """Shapes of the boards of all blocks."""

    def of(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((*shape, paths), dtype)

    markets, assets = of(sizes.venues * sizes.width), of(sizes.width)
    sides, answers = of(sizes.rows), of(sizes.rows + 1)
    return Boards(
        ring=of(sizes.window, sizes.venues, sizes.width),
        orders=jax.ShapeDtypeStruct(((sizes.rows + 1) * paths,), jnp.int32),
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

    venues, assets, pools = hourly(sizes.venues), hourly(sizes.width), hourly(sizes.pools)
    markets, cash = hourly(sizes.venues * sizes.width), hourly(2, sizes.venues)
    return Report(
        volume=hourly(sizes.rows), first_round=markets, accounts=venues, deficit=pools, surplus=pools,
        traders=hourly(2, sizes.rows), rest=hourly(2, sizes.venues * sizes.width),
        traders_cash=cash, rest_cash=cash, gross=hourly(2), cash=hourly(2, sizes.pools),
        fund_low=pools, index=assets, mark=markets, index_low=assets, index_high=assets,
        basis_low=markets, basis_high=markets,
        drawdown=jax.ShapeDtypeStruct((sizes.pools, paths), dtype),
        unknown=jax.ShapeDtypeStruct((1, paths), dtype),
    )  # fmt: skip
