"""A cascade round of the accounts on cross margin: who is triggered, and what waits.

Visited are the blocks in which the watch saw somebody at the trigger, and those in which something waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_margin import (
    Look,
    Owned,
    bankruptcy_gain,
    maintenance,
    marked,
    radius,
    short_of_margin,
    weighted_equity,
    without_equity,
)
from stress_kernels.account_pairs import Listed, for_pairs, listed
from stress_kernels.account_staging import coins_to_close, only_a_share
from stress_kernels.account_words import LOOK, Words
from stress_kernels.accounts import Accounts, Holdings, Rests
from stress_kernels.money import add_up
from stress_kernels.price import Quotes
from stress_kernels.pytree import pytree
from stress_kernels.rows import when
from stress_kernels.world import World

SOLVENT, NEAR, BANKRUPT = range(3)
"""Kinds of accounts that wait: those with equity, those of them that a vault takes, and those without."""
_LANES = 8
"""Numbers that are added at once."""


type Visit[T] = Callable[[Int[Array, " g"], Int[Array, " g"], T], T]


@pytree
class Cross:
    """Accounts on cross margin in a round."""

    accounts: Accounts
    holdings: Holdings
    """On all paths."""
    chosen: Int[Array, " n"]
    """Paths of the round."""
    lane: Int[Array, " p"]
    """Where each path is among them; -1 where it takes no part in the round."""
    quotes: Quotes
    """On these, at the round's opening."""
    number: Int[Array, " n"]
    """Of the round, counted through the run."""
    liquidates: Bool[Array, "v n"] | None = None
    """Venues that no circuit breaker has stopped, where any has one; at the others no block is looked at."""
    touched: Listed | None = None
    """Pairs in which anybody was at the trigger when the round opened, or something waits."""

    def listed(self, wanted: Bool[Array, "k p"]) -> Listed:
        """Which of some pairs are on paths of the round."""
        return listed(wanted & jax.lax.optimization_barrier(self.lane >= 0)[None])

    def pairs[T](self, of: Listed | Bool[Array, "k p"], visit: Visit[T], carry: T, times: int = 1) -> T:
        """Visit some pairs on paths of the round, `times` as many together as usual.

        `visit` is given their blocks, their lanes, and what `carry` has become.
        """

        def visit_paths(block: Array, path: Array, carry: T) -> T:
            return visit(block, self.lane[path], carry)

        chosen = of if isinstance(of, Listed) else self.listed(of)
        return for_pairs(chosen, len(self.accounts.venue), times * self.accounts.pairs, visit_paths, carry)

    def pairs_at[T](self, venues: Bool[Array, "v n"], visit: Visit[T], of: T) -> T:
        """Visit every block of some venues on some paths, seldom any."""
        return when(jnp.any(venues), lambda of: self.pairs(self.at_venues(venues), visit, of), of)

    def at_open_venues(self, wanted: Bool[Array, "k p"]) -> Bool[Array, "k p"]:
        """Some pairs, but for those at venues that do not liquidate."""
        return wanted if self.liquidates is None else wanted & self.at_venues(self.liquidates)

    def at_venues(self, wanted: Bool[Array, "v n"]) -> Bool[Array, "k p"]:
        """Every block of some venues on some paths."""
        return wanted[:, self.lane][self.accounts.venue]


@pytree
class Waiting:
    """What waits for the engine at the round's marks; and what was triggered in the round."""

    usd: Float[Array, "kind v a s n"]
    """[USD]"""
    value: Float[Array, "kind v a s n"]
    """The same at bankruptcy prices [USD or coins]."""
    triggered: Float[Array, "v a n"]
    """[USD]"""
    accounts: Float[Array, "v n"]
    """Triggered for the first time."""


def look_at(cross: Cross, block: Int[Array, " g"], path: Int[Array, " g"], lane: Int[Array, " g"]) -> Look:
    """What is seen of some pairs.

    Args:
        cross: The accounts.
        block: Of each pair.
        path: Of each pair, among all paths.
        lane: Of each pair, among the paths of the round.
    """
    accounts, holdings, quotes = cross.accounts, cross.holdings, cross.quotes
    venue, collateral, owned = accounts.venue[block], accounts.collateral, None
    if collateral is not None and holdings.coins is not None and quotes.spot is not None:
        owned = Owned(
            coins=holdings.coins[block, path],
            entry=accounts.entry[block],
            haircut=collateral.haircut[venue],
            inverse=collateral.inverse[venue],
            spot=jnp.expm1(quotes.spot[venue, :, lane]),
        )
    return Look(
        venue=venue,
        quantity=holdings.quantity[block, path],
        money=holdings.money[block, path],
        move=jnp.expm1(quotes.mark[venue, :, lane]),
        paid=holdings.paid[venue, :, path],
        owned=owned,
    )


def exists(cross: Cross, block: Int[Array, " g"]) -> Bool[Array, " g"]:
    """Whether a pair is one, and does not just fill up the last of them."""
    return block < cross.accounts.venue.shape[0]


def by_side(values: Float[Array, "g a b"], quantity: Float[Array, "g a b"]) -> Float[Array, "g a s"]:
    """Sums over the accounts of a block, of longs and of shorts."""
    return jnp.stack([of_block(jnp.where(quantity * sign > 0, values, 0.0)) for sign in (1.0, -1.0)], axis=-1)


def of_block(values: Float[Array, "*g b"]) -> Float[Array, "*g"]:
    """Sums over the accounts of a block: in lanes first, as a sum along them is what the CPU does slowest."""
    lanes = values.reshape(*values.shape[:-1], -1, _LANES)
    return jnp.sum(add_up(lanes, -2), axis=-1)


def trigger(cross: Cross, world: World) -> tuple[Cross, Waiting]:
    """Find the accounts at or past their trigger, and what waits.

    An account of which something waits is not tested again and not rescued.
    """
    accounts, words, chosen, log = cross.accounts, cross.accounts.words, cross.chosen, prices(cross.quotes)
    markets = jnp.zeros((3, *accounts.rate.shape[:2], 2, len(chosen)), log.dtype)
    none = Waiting(markets, markets, markets[0, :, :, 0], markets[0, :, 0, 0])

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Waiting]) -> tuple[Holdings, Waiting]:
        now, found = carry
        path = chosen[lane]
        look = look_at(replace(cross, holdings=now), block, path, lane)
        before = now.waiting[block, path]
        idle = jnp.all(before <= 0, axis=1) & (accounts.count[block] > 0)
        alive = idle & jnp.any(look.quantity != 0, axis=1)
        tested, begun = who_is_tested(now, alive, block, path)
        # Worked out once: else again in everything that asks for it.
        hit = jax.lax.optimization_barrier(tested & short_of_margin(look, accounts))
        partly = only_a_share(look, accounts) & ~begun
        waiting = jnp.where(hit[:, None], coins_to_close(look, accounts, hit, partly), before)
        waiting = jax.lax.optimization_barrier(waiting)
        ever = now.hit[block, path]
        found = _added(found, cross, look, block, lane, waiting, hit, hit & ~ever, world)
        free = radius(look, tested & ~hit, accounts)
        watched = now.watched.looked_at(words, block, path, log[look.venue, :, lane], free)
        now = replace(
            now,
            waiting=now.waiting.at[block, path].set(waiting, mode="drop"),
            number=now.number.at[block, path].set(
                jnp.where(hit, cross.number[lane][:, None], now.number[block, path]), mode="drop"
            ),
            hit=now.hit.at[block, path].set(ever | hit, mode="drop"),
            closing=now.closing.at[block, path].set(jnp.any(waiting > 0, axis=1), mode="drop"),
            watched=watched.bounded(words, block, path, LOOK),
            alert=now.alert.at[block, path].set(False, mode="drop"),
            busy=now.busy.at[block, path].set(jnp.any(waiting > 0, axis=(1, 2)), mode="drop"),
            rests=noted(now.rests, words, block, path, alive & ~tested, (begun & (hit | ~tested)) | (hit & partly)),
        )
        return now, found

    touched = cross.listed(cross.at_open_venues(cross.holdings.alert | cross.holdings.busy))
    holdings, waiting = cross.pairs(touched, visit, (cross.holdings, none))
    return replace(cross, holdings=holdings, touched=touched), waiting


def _added(
    to: Waiting,
    cross: Cross,
    look: Look,
    block: Int[Array, " g"],
    lane: Int[Array, " g"],
    waiting: Float[Array, "g a b"],
    hit: Bool[Array, "g b"],
    fresh: Bool[Array, "g b"],
    world: World,
) -> Waiting:
    """Add what waits of some pairs.

    Args:
        waiting: Of each position [contracts].
        hit: Who was triggered in the round.
        fresh: Who was for the first time.
    """
    count = jnp.where(exists(cross, block)[:, None], cross.accounts.count[block], 0.0)
    usd, value = sums_of_waiting(cross, look, block, waiting, world)
    new = jnp.where(hit[:, None], count[:, None] * waiting, 0.0)
    return Waiting(
        usd=to.usd.at[:, look.venue, :, :, lane].add(usd),
        value=to.value.at[:, look.venue, :, :, lane].add(value),
        triggered=to.triggered.at[look.venue, :, lane].add(of_block(new * marked(look).unit)),
        accounts=to.accounts.at[look.venue, lane].add(of_block(jnp.where(fresh, count, 0.0))),
    )


def kinds(look: Look, accounts: Accounts, world: World) -> Int[Array, "g b"]:
    """SOLVENT, NEAR or BANKRUPT, at the marks."""
    at = marked(look)
    bankrupt = without_equity(look, at)
    if world.vaults is None:
        return jnp.where(bankrupt, BANKRUPT, SOLVENT)
    kept = jnp.sum(maintenance(jnp.abs(look.quantity) * at.unit, look.venue, accounts), axis=1)
    near = (weighted_equity(look, at) < world.vaults.entry[look.venue][:, None] * kept) & (kept > 0)
    return jnp.where(bankrupt, BANKRUPT, jnp.where(near, NEAR, SOLVENT))


def sums_of_waiting(
    cross: Cross, look: Look, block: Int[Array, " g"], waiting: Float[Array, "g a b"], world: World
) -> tuple[Float[Array, "g kind a s"], Float[Array, "g kind a s"]]:
    """Sums over what waits of some pairs, by kind, at the marks [USD] and at bankruptcy prices [USD or coins]."""
    held = jnp.where(exists(cross, block)[:, None, None], cross.accounts.count[block][:, None] * waiting, 0.0)
    kind = kinds(look, cross.accounts, world)
    there = (SOLVENT, BANKRUPT) if world.vaults is None else (SOLVENT, NEAR, BANKRUPT)

    def by_kind(values: Float[Array, "g a b"]) -> Float[Array, "g kind a s"]:
        each = [by_side(jnp.where((kind == k)[:, None], values, 0.0), look.quantity) for k in there]
        nobody = jnp.zeros_like(each[0])
        return jnp.stack([each[there.index(k)] if k in there else nobody for k in range(3)], axis=1)

    usd, value = held * marked(look).unit, held * (bankruptcy_gain(look, cross.accounts) + base(look))
    kind, usd, value = jax.lax.optimization_barrier((kind, usd, value))
    return by_kind(usd), by_kind(value)


def base(look: Look) -> Float[Array, "g a 1"] | float:
    """f(1): what is between the gain of a contract and its price in the settlement currency."""
    return 1.0 if look.inverse is None else jnp.where(look.inverse[..., None], -1.0, 1.0)


def who_is_tested(
    now: Holdings, alive: Bool[Array, "g b"], block: Int[Array, " g"], path: Int[Array, " g"]
) -> tuple[Bool[Array, "g b"], Bool[Array, "g b"]]:
    """Whom of the living no pause spares the test; and of whom a fraction was closed since the last one passed."""
    if now.rests is None:
        return alive, jnp.zeros_like(alive)
    return alive & (now.rests.until[block, path] <= now.rests.step), now.rests.begun[block, path]


def noted(
    rests: Rests | None,
    words: Words,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    resting: Bool[Array, "g b"],
    begun: Bool[Array, "g b"],
) -> Rests | None:
    """What the test has shown of those that rest."""
    if rests is None:
        return None
    word, bit = words.place(block)
    return replace(
        rests,
        begun=rests.begun.at[block, path].set(begun, mode="drop"),
        someone=rests.someone.at[word, path, bit].set(jnp.any(resting, axis=1), mode="drop"),
    )


def prices(quotes: Quotes) -> Float[Array, "v x n"]:
    """Log prices that decide about accounts: marks, and spot prices where coins are anybody's money."""
    return quotes.mark if quotes.spot is None else jnp.concatenate([quotes.mark, quotes.spot], axis=1)
