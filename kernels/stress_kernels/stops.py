"""Stop orders: holders who close by themselves at a price they have named, in the book and nowhere else.

They are ladders of their own: the trigger is the named mark, the bankruptcy price is the account's. In a round they
reach the book before the forced orders of their market side, as they rest at the venue while the engine has yet to
test anybody. No engine takes them in, no take bound holds them, no fee is charged, and what an account has left is its
holder's; so they never touch an auction, a pool, a vault or a winner. An account that a jump has taken past its
bankruptcy price, at the mark or at the price at which the stop orders would be executed, is liquidated instead: whole,
at once, in a breaker's pause too, and whatever the engine has taken in; its USD count against what throughput is left.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.ladder import Sweep, parted_at, split
from stress_kernels.ladder_lanes import Lanes
from stress_kernels.layers import Curve
from stress_kernels.ledger import book_stops
from stress_kernels.money import add_up
from stress_kernels.pools import Outcome
from stress_kernels.pytree import pytree
from stress_kernels.world import World, side_sign


@pytree
class Stopped:
    """Stop orders of a round, by market and side."""

    coins: Float[Array, "v a s p"]
    usd: Float[Array, "v a s p"]
    """At the mark."""
    cash: Float[Array, "v a s p"]
    """What they are worth at their mean price [USD]."""
    forced_usd: Float[Array, "v a s p"]
    """Accounts with a stop that are liquidated instead, at the mark."""
    forced_part: Float[Array, "1 1 1 1 k"]
    """Share of what is swept on each lane that is forced; 1 where there are no stops."""

    def noted(self, outcome: Outcome, world: World) -> Outcome:
        """A round with these trades in its ledger and in the sums of its hour."""
        stocks, hour = book_stops(outcome.stocks, self.coins, self.cash, world), outcome.hour
        assert hour.stopped is not None
        return replace(outcome, stocks=stocks, hour=replace(hour, stopped=hour.stopped + self.usd))


def liquidated(accounts: Float[Array, "1 1 1 1 k"], stopped: Stopped | None, lanes: Lanes) -> Float[Array, "v p"]:
    """How many of the accounts that end are liquidated; of those with a stop on one lane, as large a share as of their
    coins."""
    return add_up(lanes.sum(accounts if stopped is None else accounts * stopped.forced_part), 1, 2)


def with_stops(
    whole: Sweep, line: Curve, mark_move: Float[Array, "v a p"], lanes: Lanes, world: World
) -> tuple[Sweep, Curve, Stopped | None]:
    """What of a round's sweep is liquidated, the curve that it finds, and the stop orders, where there are any."""
    if lanes.ladders.stops is None:
        return whole, line, None
    forced, stopped = take_stops(whole, line, mark_move, lanes, world)
    return forced, line.behind(-side_sign(stopped.usd) * stopped.usd, world), stopped


def take_stops(
    whole: Sweep, line: Curve, mark_move: Float[Array, "v a p"], lanes: Lanes, world: World
) -> tuple[Sweep, Stopped]:
    """Part a round's sweep into what is liquidated and what closes by itself.

    Args:
        whole: All that is taken in, on lanes.
        line: The curve of every market at the round's opening.
        mark_move: Mark - 1.
        lanes: The ladders swept.
        world: Rules and parameters.

    Returns:
        What is liquidated, with what is no stop order at all; and the stop orders.
    """
    ladders, kept = lanes.ladders, lanes.kept
    assert ladders.stops is not None
    stops, mark = ladders.stops, lanes.of_markets(mark_move)
    shape = whole.quantity_low.shape
    everything = jnp.broadcast_to(whole.high, shape), whole.quantity_high, whole.value_high

    def coins(part: Sweep, counted: Array) -> Float[Array, "1 1 1 1 k"]:
        quantity = add_up(jnp.maximum(part.quantity, 0.0), -2) * kept.scale
        return jnp.where(counted, quantity, 0.0)

    def price(sold: Float[Array, "v a s p"]) -> Float[Array, "v a s p"]:
        """Mean price - 1 of so many coins."""
        flow = -side_sign(sold) * sold * (1 + mark_move)[:, :, None]
        return jnp.expm1(line.mean(flow, line.after(flow, world), world))

    def parted() -> tuple[Array, Array, Array]:
        _, solvent = split(ladders, whole, mark, kept)
        executed = lanes.of_sides(price(lanes.sum(coins(solvent, stops))))
        worse = jnp.where(ladders.sign > 0, jnp.minimum(mark, executed), jnp.maximum(mark, executed))
        bankrupt, _ = split(ladders, whole, worse, kept)
        middle, own = (bankrupt.high, bankrupt.quantity_high, bankrupt.value_high), stops[..., None, :]
        place, quantity, value = (jnp.where(own, m, e) for m, e in zip(middle, everything, strict=True))
        return place, quantity, value

    fired = jnp.any(coins(whole, stops) > 0)
    forced, stopped = parted_at(whole, *jax.lax.cond(fired, parted, lambda: everything))
    closed, all_coins = lanes.sum(coins(stopped, stops)), coins(whole, stops)
    left, mark_of_side = coins(forced, stops), (1 + mark_move)[:, :, None]
    return forced, Stopped(
        coins=closed,
        usd=closed * mark_of_side,
        cash=closed * (1 + price(closed)),
        forced_usd=lanes.sum(left) * mark_of_side,
        forced_part=jnp.where(all_coins > 0, left / jnp.where(all_coins > 0, all_coins, 1.0), ~stops),
    )
