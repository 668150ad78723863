"""The forced orders of a round, by whether they may go to the book."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.account_queue import Turn, take_turns
from stress_kernels.account_rounds import BANKRUPT, NEAR, Cross, Waiting
from stress_kernels.contracts import Worth
from stress_kernels.ladder import Sweep, parted_at, split
from stress_kernels.ladder_lanes import Lanes
from stress_kernels.money import add_up
from stress_kernels.pools import exhausted
from stress_kernels.pytree import pytree
from stress_kernels.world import World, side_sign


@pytree
class Orders:
    """Slices of a round, by whether they may go to the book."""

    normal: Sweep
    """On lanes."""
    direct: Sweep
    """Those that skip book, auction and takeover."""
    usd: Float[Array, "v a s p"]
    direct_usd: Float[Array, "v a s p"]
    value: Float[Array, "v a s p"]
    """Of accounts on cross margin alone, at bankruptcy prices."""
    direct_value: Float[Array, "v a s p"]
    near_usd: Float[Array, "v a s p"]
    """The part that a vault takes of those that may go to the book; all of them accounts on cross margin."""
    near_value: Float[Array, "v a s p"]
    lack: Float[Array, "v a s p"]
    """What those among them lack that are bankrupt at the mark [USD]."""
    direct_lack: Float[Array, "v a s p"]
    skipping: Bool[Array, "v a p"]
    """Where slices bankrupt at the mark are direct."""
    straight: Bool[Array, "v a p"]
    """Where all slices are."""


def sort_orders(
    whole: Sweep,
    equity: Float[Array, "f p"],
    adl_on: Bool[Array, "f p"],
    mark_move: Float[Array, "v a p"],
    lanes: Lanes,
    world: World,
) -> Orders:
    """Find the slices that may not go to the book.

    Those bankrupt at the mark while the pool is exhausted or ADL is on; all of them where ADL goes first.
    """
    adl_on = world.to_markets(adl_on.astype(mark_move.dtype)) > 0
    spent = world.to_markets(exhausted(equity).astype(mark_move.dtype)) > 0
    straight = adl_on & world.rules.straight_to_adl[:, None, None]
    skipping = adl_on | spent
    skips, all_skip = (lanes.of_markets(x.astype(mark_move.dtype))[..., None, :] > 0 for x in (skipping, straight))
    shape = whole.quantity_low.shape
    start = jnp.broadcast_to(whole.low, shape), whole.quantity_low, whole.value_low
    end = jnp.broadcast_to(whole.high, shape), whole.quantity_high, whole.value_high

    def sorted_out() -> tuple[Array, ...]:
        bankrupt, _ = split(lanes.ladders, whole, lanes.of_markets(mark_move), lanes.kept)
        middle = bankrupt.high, bankrupt.quantity_high, bankrupt.value_high
        return tuple(jnp.where(all_skip, e, jnp.where(skips, m, s)) for s, m, e in zip(start, middle, end, strict=True))

    swept = whole.quantity_high > whole.quantity_low
    middle = jax.lax.cond(jnp.any(skips & swept), sorted_out, lambda: start)
    direct, normal = parted_at(whole, *middle)
    mark = 1 + mark_move[:, :, None]
    # Else what is left behind the book is this less the same rounded otherwise: dust that wakes the other layers.
    usd, direct_usd = jax.lax.optimization_barrier(
        tuple(lanes.sum(_coins(part, lanes.kept.scale)) * mark for part in (normal, direct))
    )
    accounts = ("value", "direct_value", "near_usd", "near_value", "lack", "direct_lack")
    return Orders(
        normal=normal,
        direct=direct,
        usd=usd,
        direct_usd=direct_usd,
        skipping=skipping,
        straight=straight,
        **dict.fromkeys(accounts, jnp.zeros_like(usd)),
    )


def _coins(part: Sweep, scale: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
    return add_up(jnp.maximum(part.quantity, 0.0) * scale[..., None, :], -2)


def with_accounts(
    orders: Orders,
    cross: Cross | None,
    waiting: Waiting | None,
    budget: Float[Array, "v a p"],
    at: Worth,
    world: World,
) -> tuple[Orders, Turn | None]:
    """The orders of a round with what is taken in of accounts that are on no ladder, at most `budget`."""
    if cross is None or waiting is None:
        return orders, None
    turn, usd, value = take_turns(cross, waiting, budget, world)
    skipping, straight = orders.skipping[:, :, None], orders.straight[:, :, None]

    def parted(taken: Float[Array, "kind v a s p"]) -> tuple[Array, Array, Array]:
        everyone = add_up(taken, 0)
        direct = jnp.where(straight, everyone, jnp.where(skipping, taken[BANKRUPT], 0.0))
        near = jnp.where(straight, 0.0, taken[NEAR] + jnp.where(skipping, 0.0, taken[BANKRUPT]))
        return everyone - direct, direct, near

    at_mark = usd[BANKRUPT] / at.unit[:, :, None] * at.settle[:, :, None]
    short = side_sign(at_mark) * (value[BANKRUPT] - at_mark) * at.money[:, :, None]
    _, direct_lack, lack = parted(jnp.zeros_like(usd).at[BANKRUPT].set(short))
    usd, direct_usd, near_usd = parted(usd)
    value, direct_value, near_value = parted(value)
    both = replace(
        orders,
        usd=orders.usd + usd,
        direct_usd=orders.direct_usd + direct_usd,
        value=value,
        direct_value=direct_value,
        near_usd=near_usd,
        near_value=near_value,
        lack=lack,
        direct_lack=direct_lack,
    )
    return both, turn
