"""Accounts on cross margin that auto-deleveraging closes: how much of each, and who they are."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_closing import receive
from stress_kernels.account_margin import marked
from stress_kernels.account_rounds import Cross, base, by_side, look_at, of_block
from stress_kernels.account_winners import Call, Winners, most_by_side, on_side, winners
from stress_kernels.accounts import Holdings
from stress_kernels.policy import Borne
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_PRO_RATA

_SAME = 1e-6
"""Profits that differ by less are equal [1]."""


@pytree
class Share:
    """How much of each winner is closed, by market and the winners' side."""

    rate: Float[Array, "v a s n"]
    """In proportion to profit: coins per USD of profit."""
    above: Float[Array, "v a s n"]
    """Otherwise: level down to which winners close [log]."""
    below: Float[Array, "v a s n"]
    """And a lower one; of what they would close from there to here, `part` is closed."""
    part: Float[Array, "v a s n"]
    top_above: Float[Array, "t v a s n"]
    """Profit from which winners belong to the largest [log USD]."""
    top_below: Float[Array, "t v a s n"]
    """Profit below which they do not; of those in between `top_part` does."""
    top_part: Float[Array, "t v a s n"]


def close_winners(
    cross: Cross,
    share: Share,
    call: Call,
    taking: Bool[Array, "v a s n"],
    ranking: Int[Array, " v"],
    price: Float[Array, "v a s n"],
    borne: Borne,
) -> tuple[Cross, Borne]:
    """Close the winners' share at the price of the deleveraging, which goes to their money.

    Args:
        call: What was asked of winners.
        taking: Where they close, by their side.
        ranking: How each venue ranks them.
        price: What they close at, in the settlement currency.
        borne: What is known of those on ladders, and the largest profit.

    Returns:
        The accounts, and who was closed of all winners.
    """
    accounts = cross.accounts
    zero = jnp.zeros(taking.shape, price.dtype)

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Borne, Array]) -> tuple[Holdings, Borne, Array]:
        now, borne, equals = carry
        path = cross.chosen[lane]
        seen = winners(replace(cross, holdings=now), block, path, lane, call)
        venue = accounts.venue[block]
        closed = jnp.where(on_side(taking, venue, lane, seen.sign), _closed(seen, share, ranking, venue, lane), 0.0)
        quantity = now.quantity[block, path] - seen.sign * closed
        look = look_at(replace(cross, holdings=now), block, path, lane)
        gain = on_side(price, venue, lane, seen.sign) - base(look) - look.paid[..., None]
        borne, equals = _noted(now, borne, equals, seen, share, closed, accounts.count[block], venue, block, path, lane)
        now = receive(now, look, block, path, seen.sign * closed * gain)
        touched = jnp.any(closed > 0, axis=1)
        flat = jnp.any(jnp.all(quantity == 0, axis=1) & touched, axis=1)
        now = replace(
            now,
            quantity=now.quantity.at[block, path].set(quantity, mode="drop"),
            closed=now.closed.at[block, path].add(closed * marked(look).unit, mode="drop"),
            settling=now.settling.at[block, path].max(flat, mode="drop"),
            deleveraged=now.deleveraged.at[block, path].set(now.deleveraged[block, path] | touched, mode="drop"),
            watched=now.watched.look_again(accounts.words, block, path),
        )
        return now, borne, equals

    holdings, borne, equals = cross.pairs_at(jnp.any(taking, axis=(1, 2)), visit, (cross.holdings, borne, zero))
    single = borne.single
    assert single is not None
    single = replace(single, first=single.first / jnp.maximum(equals, 1.0))
    return replace(cross, holdings=holdings), replace(borne, single=single)


def _closed(seen: Winners, share: Share, ranking: Array, venue: Array, lane: Array) -> Float[Array, "g a b"]:
    """What each winner closes, of one copy [coins]."""

    def own(values: Array) -> Array:
        return on_side(values, venue, lane, seen.sign)

    near, far = (seen.closing(own(level), ranking[venue]) for level in (share.above, share.below))
    ranked = near + own(share.part) * (far - near)
    by_profit = jnp.minimum(own(share.rate) * seen.profit * seen.size, seen.capacity)
    closed = jnp.where((ranking[venue] == ADL_PRO_RATA)[:, None, None], by_profit, ranked)
    # Who closes all but rounding closes all: of no position a dust is left.
    return jnp.where(closed >= seen.capacity * (1 - 4 * jnp.finfo(closed.dtype).eps), seen.capacity, closed)


def _noted(
    now: Holdings,
    borne: Borne,
    equals: Float[Array, "v a s n"],
    seen: Winners,
    share: Share,
    closed: Float[Array, "g a b"],
    count: Float[Array, "g b"],
    venue: Int[Array, " g"],
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    lane: Int[Array, " g"],
) -> tuple[Borne, Float[Array, "v a s n"]]:
    """Add some blocks to what is known of the winners.

    Args:
        now: The accounts before they close.
        equals: How many have the largest profit, so far.
    """
    here, single = (venue, slice(None), slice(None), lane), borne.single
    assert single is not None

    def own(values: Array) -> Array:
        return on_side(values, venue, lane, seen.sign)

    def posted(total: Array, values: Array) -> Array:
        return total.at[here].add(by_side(values, seen.sign))

    top = []
    for total, above, below, part in zip(borne.top, share.top_above, share.top_below, share.top_part, strict=True):
        partly = jnp.where(seen.gain_log >= own(below), own(part), 0.0)
        share_of = jnp.where(seen.gain_log >= own(above), 1.0, partly)
        top.append(posted(total, count[:, None] * closed * share_of))
    profit = seen.size * seen.profit
    first = (profit > 0) & (profit >= (1 - _SAME) * own(single.profit))
    fresh = jnp.any(closed > 0, axis=1) & ~now.deleveraged[block, path]
    after = replace(
        borne,
        top=jnp.stack(top),
        single=replace(
            single,
            first=posted(single.first, jnp.where(first, closed, 0.0)),
            most=single.most.at[here].max(most_by_side(closed, seen.sign)),
            accounts=single.accounts.at[venue, lane].add(of_block(jnp.where(fresh, count, 0.0))),
        ),
    )
    return after, posted(equals, first.astype(closed.dtype))
