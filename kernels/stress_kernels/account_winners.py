"""Accounts on cross margin as winners: whom auto-deleveraging closes, and who bears socialised losses.

A position wins where its own profit is positive, its account has equity, and nothing of the account is being closed.
Whoever wins is asked position by position, at the round's opening: by rank, profit / entry notional x notional of the
account / equity; in proportion to profit; or by water filling, which brings the accounts of the highest leverage,
notional / equity, down to one level. A position gives at most what it has, and no more than the account can pay: equity
is shared by profit over the positions of an account that are asked, and bounds what each may lose against the mark.
What is asked is found in passes over the accounts, only on paths where there is something to share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from stress_kernels import contracts
from stress_kernels.account_closing import receive
from stress_kernels.account_margin import equity, marked, without_equity
from stress_kernels.account_rounds import Cross, base, by_side, look_at, of_block
from stress_kernels.accounts import Holdings
from stress_kernels.pytree import pytree
from stress_kernels.world import ADL_WATER_FILLING

Tally = tuple[Array, ...]
LOWEST, HIGHEST = -30.0, 40.0
"""Bracket of the log of ranks and leverages; at its lower end everybody closes whole."""


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
    notional: Float[Array, "g b"]
    """Of all positions of the account [USD]."""
    unit: Float[Array, "g a 1"]
    """Notional of a contract [USD]."""

    @property
    def gain_log(self) -> Float[Array, "g a b"]:
        """Log of the position's profit [USD]; below every bracket where it does not win."""
        gain = self.size * self.profit
        return jnp.where(gain > 0, jnp.log(jnp.where(gain > 0, gain, 1.0)), -jnp.inf)

    def closing(self, level_log: Float[Array, "g a b"], ranking: Int[Array, " g"]) -> Float[Array, "g a b"]:
        """Coins closed where the best-ranked go first, down to a level.

        In a queue those at or above the rank close whole. By water filling an account comes down to the leverage L,
        by clip((notional - L equity) / unit, 0, capacity) coins.
        """
        floor = jnp.where(level_log > LOWEST, jnp.exp(level_log), 0.0)
        above = (self.notional[:, None] - floor * self.equity[:, None]) / self.unit
        lowered = jnp.where(floor > 0, jnp.clip(above, 0.0, self.capacity), self.capacity)
        whole = jnp.where(self.rank >= level_log, self.capacity, 0.0)
        return jnp.where((ranking == ADL_WATER_FILLING)[:, None, None], lowered, whole)


def winners(
    cross: Cross, block: Int[Array, " g"], path: Int[Array, " g"], lane: Int[Array, " g"], call: Call | None = None
) -> Winners:
    accounts, now = cross.accounts, cross.holdings
    look = look_at(cross, block, path, lane)
    at, entry = marked(look), accounts.entry[block]
    sign, size = jnp.sign(look.quantity), jnp.abs(look.quantity)
    have = jnp.maximum(equity(look, at), 0.0)
    notional = jnp.sum(size * at.unit, axis=1)
    profit = sign * (at.gain - contracts.gain(entry, look.inverse)) * at.money
    idle = ~now.closing[block, path] & ~without_equity(look, at) & (accounts.count[block] > 0)
    wins = idle[:, None] & (profit > 0) & (size > 0) & (block < accounts.venue.shape[0])[:, None, None]
    leverage = notional / jnp.where(have > 0, have, 1.0)
    rank = jnp.where(wins, profit, 1.0) / contracts.unit(entry, look.inverse) * leverage[:, None]
    size, profit = jnp.where(wins, size, 0.0), jnp.where(wins, profit, 0.0)
    capacity = size
    if call is not None:
        gain = jnp.where(on_side(call.asked, look.venue, lane, sign), size * profit, 0.0)
        total = jnp.sum(gain, axis=1, keepdims=True)
        loss = sign * (base(look) + at.gain - on_side(call.price, look.venue, lane, sign)) * at.money
        budget = have[:, None] * gain / jnp.where(total > 0, total, 1.0)
        capacity = jnp.where(loss > 0, jnp.minimum(size, budget / jnp.maximum(loss, 1e-30)), size)
    return Winners(
        sign=sign,
        size=size,
        capacity=capacity,
        profit=profit,
        rank=jnp.log(jnp.maximum(rank, 1e-30)),
        equity=have,
        notional=notional,
        unit=at.unit,
    )


def _totals(
    cross: Cross, call: Call, parts: int, measure: Callable[[Winners, Array, Array], Tally], peaks: int = 0
) -> Tally:
    """Sums of `measure` over all winners and copies, by market and side, on paths where that venue asks.

    Of the last `peaks` numbers it is not the sum but the largest.
    """
    accounts = cross.accounts
    zero = jnp.zeros_like(call.price)

    def visit(block: Array, lane: Array, sums: Tally) -> Tally:
        seen = winners(cross, block, cross.chosen[lane], lane, call)
        venue, count = accounts.venue[block], accounts.count[block][:, None]
        here = venue, slice(None), slice(None), lane
        found = measure(seen, venue, lane)
        added = [
            total.at[here].add(by_side(count * part, seen.sign))
            for total, part in zip(sums[:parts], found[:parts], strict=True)
        ]
        most = [
            total.at[here].max(most_by_side(part, seen.sign))
            for total, part in zip(sums[parts:], found[parts:], strict=True)
        ]
        return (*added, *most)

    return cross.pairs_at(jnp.any(call.asked, axis=(1, 2)), visit, (zero,) * (parts + peaks))


def most_by_side(values: Float[Array, "g a b"], sign: Float[Array, "g a b"]) -> Float[Array, "g a s"]:
    """Largest over the accounts of a block, of longs and of shorts, at least 0."""
    return jnp.stack([jnp.max(jnp.where(sign * s > 0, values, 0.0), axis=-1) for s in (1.0, -1.0)], axis=-1)


def on_side(values: Shaped[Array, "v a s n"], venue: Array, lane: Array, sign: Array) -> Shaped[Array, "g a b"]:
    """Of numbers by market and side, each position's own."""
    each = values[venue, :, :, lane]
    return jnp.where(sign >= 0, each[:, :, 0, None], each[:, :, 1, None])


def profitable(cross: Cross, call: Call) -> Tally:
    """Coins that winners can close, their profit [USD], their number, and the largest profit of one [USD], by the
    winners' side."""

    def measure(seen: Winners, venue: Array, lane: Array) -> Tally:
        gain = seen.size * seen.profit
        return seen.capacity, gain, (gain > 0).astype(gain.dtype), gain

    return _totals(cross, call, 3, measure, peaks=1)


def capped(cross: Cross, call: Call, rate: Float[Array, "v a s n"]) -> Tally:
    """Where winners close rate x profit coins: coins of those who cannot, and the profit of the others [USD]."""

    def measure(seen: Winners, venue: Array, lane: Array) -> Tally:
        profit = seen.size * seen.profit
        whole = on_side(rate, venue, lane, seen.sign) * profit >= seen.capacity
        return jnp.where(whole, seen.capacity, 0.0), jnp.where(whole, 0.0, profit)

    return _totals(cross, call, 2, measure)


def ranked(
    cross: Cross,
    call: Call,
    ranking: Int[Array, " v"],
    level_log: Float[Array, "v a s n"],
    gain_log: Float[Array, "t v a s n"],
) -> tuple[Float[Array, "v a s n"], Float[Array, "t v a s n"]]:
    """Coins that winners close down to a level, and how many of them have at least so much profit."""

    def measure(seen: Winners, venue: Array, lane: Array) -> Tally:
        coins = seen.closing(on_side(level_log, venue, lane, seen.sign), ranking[venue])
        gains = (seen.gain_log >= on_side(least, venue, lane, seen.sign) for least in gain_log)
        return coins, *(gain.astype(coins.dtype) for gain in gains)

    coins, *winners = _totals(cross, call, 1 + gain_log.shape[0], measure)
    return coins, jnp.stack(winners)


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
        seen = winners(cross, block, path, lane)
        worth = _bearable(cross, seen, asks[venue, :, lane], block, path) * accounts.count[block][:, None]
        return total.at[venue, :, lane].add(of_block(worth))

    return cross.pairs_at(jnp.any(asks, axis=1), visit, zero)


def socialise(cross: Cross, asks: Bool[Array, "v a n"], kappa: Float[Array, "v a n"]) -> Cross:
    """Take the share `kappa` of what winners can bear."""
    accounts = cross.accounts

    def visit(block: Array, lane: Array, now: Holdings) -> Holdings:
        path, venue = cross.chosen[lane], accounts.venue[block]
        here = replace(cross, holdings=now)
        seen = winners(here, block, path, lane)
        bears = _bearable(here, seen, asks[venue, :, lane], block, path) * kappa[venue, :, lane][..., None]
        per_coin = bears / jnp.where(seen.size > 0, seen.size, 1.0)
        look = look_at(here, block, path, lane)
        now = receive(now, look, block, path, -bears / marked(look).money)
        return replace(
            now,
            taken=now.taken.at[block, path].add(per_coin, mode="drop"),
            watched=now.watched.look_again(accounts.words, block, path),
        )

    return replace(cross, holdings=cross.pairs_at(jnp.any(asks, axis=1), visit, cross.holdings))
