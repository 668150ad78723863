"""A cascade round in which the order book takes everything, as it does in nearly all of them.

A round is *quiet* on a path where engines take in all that is triggered, no order leads beyond the take bound, nothing
waits, and no pool deleverages, is empty or is asked for more than it has. Then only imbalances, prices, triggers and
the pools' cash change, and all of that follows from what is swept, ladder by ladder. The rest of `cascade_round` has
nothing to do, so it is left out, with what it would look at; book and settlement are the same functions, on lanes.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.breakers import throughput
from stress_kernels.engine import ended
from stress_kernels.ladder import Ladders, row_at, sweep
from stress_kernels.ladder_lanes import Lanes
from stress_kernels.layers import beyond, curve_at, farthest
from stress_kernels.marks import Held, observe, press, reached
from stress_kernels.money import Sum, add_up, any_of
from stress_kernels.pools import charge, exhausted
from stress_kernels.price import Quotes
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Earned, left_of
from stress_kernels.state import Extremes, State, worth_of
from stress_kernels.world import World, side_sign

_OF_STATE = "u_local", "u_global", "quotes", "reach", "extremes"
_OF_FUNDS = "cash", "equity", "peak", "drawdown"
Closed = Float[Array, "3 k"]
"""Of each lane: contracts, what they earn in the book, and USD at the mark."""


@pytree
class Tally:
    """Sums over the quiet rounds of a step."""

    used: Float[Array, "v a p"]
    """Closed [USD at the marks]."""
    first: Float[Array, "v a p"]
    """The part of it in the first round."""
    received: Float[Array, "f p"]
    """Fees, and surplus where the pool gets it [USD]."""
    lacking: Float[Array, "f p"]
    """Deficits [USD]."""
    accounts: Float[Array, "v p"]
    """Closed for good."""


@pytree
class Moving:
    """What a quiet round changes of a path: parts of its state, with `due`, what its marks trigger, and a tally."""

    u_local: Float[Array, "v a p"]
    u_global: Float[Array, "a p"]
    quotes: Quotes
    reach: Float[Array, "v a s e p"]
    extremes: Extremes
    cash: Sum
    equity: Float[Array, "f p"]
    peak: Float[Array, "f p"]
    drawdown: Float[Array, "f p"]
    due: Float[Array, "v a s e p"]
    tally: Tally

    @classmethod
    def of(cls, state: State, due: Float[Array, "v a s e p"], tally: Tally) -> Moving:
        """Taken out of a state."""
        parts = {name: getattr(state, name) for name in _OF_STATE}
        return cls(**parts, **{name: getattr(state.funds, name) for name in _OF_FUNDS}, due=due, tally=tally)

    def into(self, state: State) -> State:
        """Put into a state."""
        funds = replace(state.funds, **{name: getattr(self, name) for name in _OF_FUNDS})
        return replace(state, funds=funds, **{name: getattr(self, name) for name in _OF_STATE})

    @property
    def live(self) -> Bool[Array, " p"]:
        """Whether a round would do anything."""
        return any_of(self.due > self.reach, 0, 1, 2, 3)


def is_known(ladders: Ladders, world: World) -> bool:
    """Whether rounds can be quiet at all: not where contracts are inverse, or where anybody has a stop order."""
    return world.inverse is None and ladders.stops is None


def terms(world: World) -> Float[Array, "v a s column"]:
    """What lanes look up of their markets, and no path changes."""
    of_venues = [x[:, None] for x in (world.rules.fee, world.rules.surplus_to_pool)]
    of_markets = [world.adv, world.adv_global, world.impact.coefficient, world.take_bound, *of_venues]
    shape = *world.adv.shape, 2
    return jnp.stack([jnp.broadcast_to(x[..., None], shape).astype(world.adv.dtype) for x in of_markets], -1)


def quiet_round(
    moving: Moving,
    state: State,
    held: Held,
    first: Bool[Array, ""],
    lanes: Lanes,
    of_markets: Float[Array, "v a s column"],
    ladders: Ladders,
    world: World,
) -> tuple[Moving, Closed, Bool[Array, " p"]]:
    """One round, as if it were quiet on all paths.

    Args:
        moving: What it changes.
        state: The rest; nothing waits in it, and no pool deleverages.
        held: Of the step.
        first: Whether this is the first round of the step.
        lanes: All ladders on which anything is triggered.
        of_markets: `terms` of the run.
        ladders: All of them.
        world: Rules and parameters.

    Returns:
        What it changes, what it closes, and where it is quiet; elsewhere the two mean nothing.
    """
    state, known = moving.into(state), _known(of_markets, moving, held, lanes)
    low, high = lanes.of_ladders(moving.reach), lanes.of_ladders(moving.due)
    row_low, row_high = row_at(lanes.ladders, low), row_at(lanes.ladders, high)
    part = sweep(low, high, row_low, row_high)
    coins = add_up(jnp.maximum(part.quantity, 0.0), -2) * lanes.kept.scale
    usd = jax.lax.optimization_barrier(coins * jnp.exp(known.mark))
    earned, too_much = _into_book(usd, known, lanes, world)
    left = left_of(part, earned, lanes)
    received = left.fee + jnp.where(known.keeps > 0, left.surplus, 0.0)
    sums = usd, received, left.deficit, ended(lanes, row_low, row_high), too_much.astype(usd.dtype)
    of_sides, received, lacking, accounts, too_much = map(lanes.sum, jax.lax.optimization_barrier(sums))

    before, at = state.funds, worth_of(state.quotes, world)
    demand, receipts, deficits = add_up(of_sides, 2), *(world.to_pools(add_up(x, 2)) for x in (received, lacking))
    funds, short = charge(before, receipts, deficits, at, world)
    spent = (short > 0) | exhausted(before.equity)
    late = moving.tally.used + demand > throughput(held.liquidates, world)
    # Each found once: else for every term that enters the other.
    loud = jax.lax.optimization_barrier((any_of(spent, 0), any_of(late, 0, 1), any_of(too_much > 0, 0, 1, 2)))
    state = replace(state, reach=moving.due, funds=funds)
    state = observe(press(state, -add_up(side_sign(of_sides) * of_sides, 2), held, world), world)
    one = Tally(demand, jnp.where(first, demand, 0.0), receipts, deficits, add_up(accounts, 1, 2))
    moving = Moving.of(state, reached(state, held, ladders, world), jax.tree.map(jnp.add, moving.tally, one))
    closed = jnp.concatenate([coins, coins * (1 + earned.moves), usd])
    return moving, closed.reshape(3, -1), ~(loud[0] | loud[1] | loud[2])


@pytree
class _Known:
    """What lanes know of their markets and paths."""

    mark: Float[Array, "1 1 1 1 k"]
    """Log mark."""
    index: Float[Array, "1 1 1 1 k"]
    u_local: Float[Array, "1 1 1 1 k"]
    u_global: Float[Array, "1 1 1 1 k"]
    per_usd_local: Float[Array, "1 1 1 1 k"]
    per_usd_global: Float[Array, "1 1 1 1 k"]
    coefficient: Float[Array, "1 1 1 1 k"]
    bound: Float[Array, "1 1 1 1 k"]
    fee: Float[Array, "1 1 1 1 k"]
    keeps: Float[Array, "1 1 1 1 k"]


def _known(of_markets: Float[Array, "v a s column"], moving: Moving, held: Held, lanes: Lanes) -> _Known:
    adv, adv_global, coefficient, bound, fee, keeps = lanes.of_table(of_markets)
    depth = lanes.of_assets(held.depth)
    return _Known(
        mark=lanes.of_markets(moving.quotes.mark),
        index=lanes.of_assets(moving.quotes.index),
        u_local=lanes.of_markets(moving.u_local),
        u_global=lanes.of_assets(moving.u_global),
        per_usd_local=depth / adv,
        per_usd_global=depth / adv_global,
        coefficient=coefficient,
        bound=bound,
        fee=fee,
        keeps=keeps,
    )


def _into_book(
    usd: Float[Array, "1 1 1 1 k"], known: _Known, lanes: Lanes, world: World
) -> tuple[Earned, Bool[Array, "1 1 1 1 k"]]:
    """What slices get when all of them go into the book, and where they lead beyond the take bound."""
    sign, at = lanes.ladders.sign[0], jax.tree.map(lambda x: x[0], known)
    flow = -sign * lanes.together(usd)[0]
    imbalances = at.u_local, at.u_global, at.per_usd_local, at.per_usd_global
    line = curve_at(at.index, *imbalances, at.coefficient, world)
    end = jax.lax.optimization_barrier(line.after(flow, world))
    limit = farthest(at.mark, sign, at.bound)
    too_much = beyond(end, limit, sign, line, world)[None] & (usd > 0)
    move = jax.lax.optimization_barrier(jnp.expm1(line.mean(flow, end, world)))[None]
    return Earned(fixed=jnp.ones_like(move), moves=move, fee=known.fee * (1 + move)), too_much
