"""Accounts on cross margin as winners: whom auto-deleveraging closes, and who bears socialised losses.

A position wins where its own profit is positive, its account has equity, and nothing of the account is being closed.
Whoever wins is asked position by position, at the round's opening: by rank, profit / entry notional x notional of the
account / equity, or in proportion to profit. A position gives at most what it has, and no more than the account can
pay: equity is shared by profit over the positions of an account that are asked, and bounds what each may lose against
the mark. What is asked is found in passes over the accounts, only on paths where there is something to share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from stress_kernels import contracts
from stress_kernels.account_closing import receive
from stress_kernels.account_margin import equity, marked
from stress_kernels.account_rounds import Cross, base, by_side, for_pairs, look_at
from stress_kernels.accounts import LOOK, Holdings
from stress_kernels.pytree import pytree

Tally = tuple[Array, ...]


@pytree
class Call:
    """What is asked of winners."""

    asked: Bool[Array, "v a s n"]
    """By the winners' side."""
    price: Float[Array, "v a s n"]
    """Average price at which they close, in the settlement currency."""


@pytree
class Winners:
    """Positions of some blocks on some paths."""

    sign: Float[Array, "g a b"]
    size: Float[Array, "g a b"]
    """Of those that win, else 0 [coins]."""
    capacity: Float[Array, "g a b"]
    """What of it can be closed: no account pays more than it has [coins]."""
    profit: Float[Array, "g a b"]
    """Of those that win, else 0 [USD per coin]."""
    rank: Float[Array, "g a b"]
    """Log of the rank by which a venue's queue is ordered."""
    equity: Float[Array, "g b"]
    """At least 0 [USD]."""


def _winners(
    cross: Cross, block: Int[Array, " g"], path: Int[Array, " g"], lane: Int[Array, " g"], call: Call | None = None
) -> Winners:
    accounts, now = cross.accounts, cross.holdings
    look = look_at(cross, block, path, lane)
    at, entry = marked(look), accounts.entry[block]
    sign, size = jnp.sign(look.quantity), jnp.abs(look.quantity)
    have = jnp.maximum(equity(look, at), 0.0)
    notional = jnp.sum(size * at.unit, axis=1)
    profit = sign * (at.gain - contracts.gain(entry, look.inverse)) * at.money
    idle = ~now.closing[block, path] & (have > 0) & (accounts.count[block] > 0)
    wins = idle[:, None] & (profit > 0) & (size > 0) & (block < accounts.venue.shape[0])[:, None, None]
    leverage = notional / jnp.where(have > 0, have, 1.0)
    rank = jnp.where(wins, profit, 1.0) / contracts.unit(entry, look.inverse) * leverage[:, None]
    size, profit = jnp.where(wins, size, 0.0), jnp.where(wins, profit, 0.0)
    capacity = size
    if call is not None:
        gain = jnp.where(_on_side(call.asked, look.venue, lane, sign), size * profit, 0.0)
        total = jnp.sum(gain, axis=1, keepdims=True)
        loss = sign * (base(look) + at.gain - _on_side(call.price, look.venue, lane, sign)) * at.money
        budget = have[:, None] * gain / jnp.where(total > 0, total, 1.0)
        capacity = jnp.where(loss > 0, jnp.minimum(size, budget / jnp.where(loss > 0, loss, 1.0)), size)
    return Winners(
        sign=sign,
        size=size,
        capacity=capacity,
        profit=profit,
        rank=jnp.log(jnp.maximum(rank, 1e-30)),
        equity=have,
    )


def _totals(cross: Cross, call: Call, parts: int, measure: Callable[[Winners, Array, Array], Tally]) -> Tally:
    """Sums of `measure` over all winners and copies, by market and side, on paths where that venue asks."""
    accounts = cross.accounts
    wanted = jnp.any(call.asked, axis=(1, 2))[accounts.venue]
    zero = jnp.zeros_like(call.price)

    def visit(block: Array, lane: Array, sums: Tally) -> Tally:
        seen = _winners(cross, block, cross.chosen[lane], lane, call)
        venue, count = accounts.venue[block], accounts.count[block][:, None]
        here = venue, slice(None), slice(None), lane
        found = measure(seen, venue, lane)
        return tuple(
            total.at[here].add(by_side(count * part, seen.sign)) for total, part in zip(sums, found, strict=True)
        )

    return for_pairs(wanted, accounts.pairs, visit, (zero,) * parts)


def _on_side(values: Shaped[Array, "v a s n"], venue: Array, lane: Array, sign: Array) -> Shaped[Array, "g a b"]:
    """Of numbers by market and side, each position's own."""
    each = values[venue, :, :, lane]
    return jnp.where(sign >= 0, each[:, :, 0, None], each[:, :, 1, None])


def profitable(cross: Cross, call: Call) -> Tally:
    """Coins that winners can close, and their profit [USD], by the winners' side."""
    return _totals(cross, call, 2, lambda seen, venue, lane: (seen.capacity, seen.size * seen.profit))


def capped(cross: Cross, call: Call, rate: Float[Array, "v a s n"]) -> Tally:
    """Where winners close rate x profit coins: coins of those who cannot, and the profit of the others [USD]."""

    def measure(seen: Winners, venue: Array, lane: Array) -> Tally:
        profit = seen.size * seen.profit
        whole = _on_side(rate, venue, lane, seen.sign) * profit >= seen.capacity
        return jnp.where(whole, seen.capacity, 0.0), jnp.where(whole, 0.0, profit)

    return _totals(cross, call, 2, measure)


def ranked(cross: Cross, call: Call, rank_log: Float[Array, "v a s n"]) -> Float[Array, "v a s n"]:
    """Coins that winners at or above a rank can close."""

    def measure(seen: Winners, venue: Array, lane: Array) -> Tally:
        return (jnp.where(seen.rank >= _on_side(rank_log, venue, lane, seen.sign), seen.capacity, 0.0),)

    return _totals(cross, call, 1, measure)[0]


@pytree
class Share:
    """How much of each winner is closed, by market and the winners' side."""

    rate: Float[Array, "v a s n"]
    """In proportion to profit: coins per USD of profit."""
    above: Float[Array, "v a s n"]
    """By rank: log rank from which positions close whole."""
    below: Float[Array, "v a s n"]
    """By rank: log rank below which they do not; in between `part` of them closes."""
    part: Float[Array, "v a s n"]


def close_winners(
    cross: Cross,
    share: Share,
    call: Call,
    taking: Bool[Array, "v a s n"],
    by_rank: Bool[Array, " v"],
    price: Float[Array, "v a s n"],
) -> tuple[Cross, Float[Array, "v a s n"]]:
    """Close the winners' share at the price of the deleveraging, which goes to their money.

    Args:
        call: What was asked of winners.
        taking: Where they close, by their side.
        by_rank: Venues with a queue.
        price: What they close at, in the settlement currency.

    Returns:
        The accounts, and the number of those that closed anything.
    """
    accounts = cross.accounts
    wanted = jnp.any(taking, axis=(1, 2))[accounts.venue]
    zero = jnp.zeros(taking.shape, price.dtype)

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Array]) -> tuple[Holdings, Array]:
        now, touched = carry
        path = cross.chosen[lane]
        seen = _winners(replace(cross, holdings=now), block, path, lane, call)
        venue = accounts.venue[block]

        def own(values: Array) -> Array:
            return _on_side(values, venue, lane, seen.sign)

        partly = jnp.where(seen.rank >= own(share.below), own(share.part), 0.0)
        of_rank = jnp.where(seen.rank >= own(share.above), 1.0, partly)
        of_profit = jnp.minimum(own(share.rate) * seen.profit * seen.size, seen.capacity)
        of_each = jnp.where(by_rank[venue][:, None, None], of_rank * seen.capacity, of_profit)
        closed = jnp.where(own(taking), of_each, 0.0)
        quantity = now.quantity[block, path] - seen.sign * closed
        look = look_at(replace(cross, holdings=now), block, path, lane)
        gain = own(price) - base(look) - look.paid[..., None]
        now = receive(now, look, block, path, seen.sign * closed * gain)
        flat = jnp.any(jnp.all(quantity == 0, axis=1) & jnp.any(closed > 0, axis=1), axis=1)
        count = accounts.count[block][:, None]
        touched = touched.at[venue, :, :, lane].add(by_side(jnp.where(closed > 0, count, 0.0), seen.sign))
        now = replace(
            now,
            quantity=now.quantity.at[block, path].set(quantity, mode="drop"),
            closed=now.closed.at[block, path].add(
                closed * contracts.unit(look.move[..., None], look.inverse), mode="drop"
            ),
            settling=now.settling.at[block, path].max(flat, mode="drop"),
            radius=now.radius.at[block, path].set(LOOK, mode="drop"),
        )
        return now, touched

    holdings, touched = for_pairs(wanted, accounts.pairs, visit, (cross.holdings, zero))
    return replace(cross, holdings=holdings), touched


def _bearable(cross: Cross, seen: Winners, asks: Array, block: Array, path: Array) -> Array:
    """What each winning position can bear: its profit not taken before; an account at most its equity [USD]."""
    profit = jnp.maximum(seen.size * (seen.profit - cross.holdings.taken[block, path]), 0.0)
    profit = jnp.where(asks[..., None], profit, 0.0)
    total = jnp.sum(profit, axis=1)
    share = jnp.where(total > seen.equity, seen.equity / jnp.where(total > 0, total, 1.0), 1.0)
    return profit * share[:, None]


def bearable(cross: Cross, asks: Bool[Array, "v a n"]) -> Float[Array, "v a n"]:
    """Unrealised profit that can be socialised, in markets whose pool asks [USD]."""
    accounts = cross.accounts
    zero = jnp.zeros_like(cross.quotes.mark)

    def visit(block: Array, lane: Array, total: Array) -> Array:
        path, venue = cross.chosen[lane], accounts.venue[block]
        seen = _winners(cross, block, path, lane)
        worth = _bearable(cross, seen, asks[venue, :, lane], block, path) * accounts.count[block][:, None]
        return total.at[venue, :, lane].add(jnp.sum(worth, axis=-1))

    return for_pairs(jnp.any(asks, axis=1)[accounts.venue], accounts.pairs, visit, zero)


def socialise(cross: Cross, asks: Bool[Array, "v a n"], kappa: Float[Array, "v a n"]) -> Cross:
    """Take the share `kappa` of what winners can bear."""
    accounts = cross.accounts

    def visit(block: Array, lane: Array, now: Holdings) -> Holdings:
        path, venue = cross.chosen[lane], accounts.venue[block]
        here = replace(cross, holdings=now)
        seen = _winners(here, block, path, lane)
        bears = _bearable(here, seen, asks[venue, :, lane], block, path) * kappa[venue, :, lane][..., None]
        per_coin = bears / jnp.where(seen.size > 0, seen.size, 1.0)
        look = look_at(here, block, path, lane)
        now = receive(now, look, block, path, -bears / marked(look).money)
        return replace(
            now,
            taken=now.taken.at[block, path].add(per_coin, mode="drop"),
            radius=now.radius.at[block, path].set(LOOK, mode="drop"),
        )

    wanted = jnp.any(asks, axis=1)[accounts.venue]
    return replace(cross, holdings=for_pairs(wanted, accounts.pairs, visit, cross.holdings))
