"""What the kernels that go through whole days read: sizes, parameters and tables.

Inside that of a GPU every field is a reference to memory. A *tile* has the assets of one venue, or of one side of it,
by the paths of a block; as tiles must have a power of two of numbers, assets that are not there fill them up: nobody
holds or trades any. A thread has one number of every tile: so numbers of assets are given for all paths, and whatever
is read or written begins at a lane that the compiler does not know, lest it deals out four paths to a thread. Where no
tiles are needed there are as many assets as there are, and numbers for one path.
Axes: `v` venue, `s` side, `a` asset of a tile, `f` pool, `k` ladder, `c` margin class, `p` path.
"""

from __future__ import annotations

from typing import Any

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
    def threads(self) -> int:
        """Of a block: one for each number of a tile, and as many orders are worked on together."""
        return self.width * self.lanes

    @property
    def rows(self) -> int:
        """Of a board that has one for each side of each market of all tiles (v s a)."""
        return 2 * self.venues * self.width


@pytree
class Tables:
    """Parameters and tables of a run."""

    impact: Place
    """rho, delta, depth, index weight, decay of local and of global imbalances, spread of the ladders, and 1 where
    there is any contagion (8)."""
    first: Place
    """The first lane (1): 0, which nobody has told the compiler."""
    sigma: Place
    """(a)"""
    coefficient: Place
    """(a p)"""
    barrier: Place
    """Shift of the triggers, (a p) [log]."""
    adv_global: Place
    contagion: Place
    """Of asset b on all, (b a p)."""
    adv: Place
    """(v a p)"""
    bound: Place
    throughput: Place
    behind: Place
    """(f v a p)"""
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
    """(v s a p)"""
    traders: Place
    """Contracts at the start, (v s a p)."""
    rest: Place
    """(v a p)"""
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
    capacity: Place
    """Of makers in an hour, (v a p), as the rest of these only for the kernel of a CPU [USD]."""
    discount: Place
    multiple: Place
    """Of a pool's equity that it may take over, (f) [1]."""
    unwind: Place
    """Rate at which it sells that, (v a p) [USD a step]."""


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
    of_steps = (impact.decay_local, impact.decay_global, ladders.spread, jnp.any(impact.contagion != 0))

    def filled(x: Any, value: float = 0.0) -> Array:
        """All assets of a tile, for all paths; assets come last."""
        whole = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, sizes.width - sizes.assets)], constant_values=value)
        return jnp.broadcast_to(whole[..., None], (*whole.shape, sizes.lanes))

    def of_sides(x: Any) -> Array:
        return filled(jnp.swapaxes(x, 1, 2))

    return Tables(
        impact=jnp.stack([jnp.asarray(x, dtype) for x in (*numbers, *of_steps)]),
        first=jnp.zeros((1,), jnp.int32),
        sigma=filled(world.sigma, 1.0)[:, 0],
        coefficient=filled(impact.coefficient),
        contagion=filled(impact.contagion.T),
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
        capacity=filled(world.auction),
        discount=filled(world.discount),
        multiple=world.takeover_multiple,
        unwind=filled(world.unwind),
    )
