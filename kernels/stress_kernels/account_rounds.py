"""A cascade round of the accounts on cross margin: who is triggered, and what becomes of those that are closed.

A block on a path is looked at where a mark has left its radius, and closed from where something waits in it. These
pairs are listed and worked off a few at a time, in the order of the blocks: what is summed over a path is summed in
the same order whatever the other paths do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.accounts import (
    LOOK,
    Accounts,
    Holdings,
    Look,
    Rests,
    bankruptcy_move,
    coins_to_close,
    equity,
    only_a_share,
    radius,
    short_of_margin,
)
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Fills, Settled
from stress_kernels.world import ADL_BANKRUPTCY, World


@pytree
class Waiting:
    """What waits for the engine at the round's marks [USD]; and what was triggered in the round."""

    solvent: Float[Array, "v a s n"]
    bankrupt: Float[Array, "v a s n"]
    """Of accounts without equity."""
    solvent_value: Float[Array, "v a s n"]
    """The same at bankruptcy prices [USD]."""
    bankrupt_value: Float[Array, "v a s n"]
    triggered: Float[Array, "v a n"]
    accounts: Float[Array, "v n"]
    """Triggered for the first time."""


def for_pairs[T](
    wanted: Bool[Array, "k n"], size: int, visit: Callable[[Int[Array, " g"], Int[Array, " g"], T], T], carry: T
) -> T:
    """Visit all pairs that are wanted, `size` at a time; the last ones are filled up with block number K."""
    blocks, paths = wanted.shape
    total = blocks * paths
    listed = jnp.flatnonzero(wanted, size=total, fill_value=total)
    listed = jnp.concatenate([listed, jnp.full(size, total, listed.dtype)])
    count = jnp.sum(wanted)

    def turn(now: tuple[Array, T]) -> tuple[Array, T]:
        at, carry = now
        pair = jax.lax.dynamic_slice_in_dim(listed, at, size)
        return at + size, visit(pair // paths, pair % paths, carry)

    return jax.lax.while_loop(lambda now: now[0] < count, turn, (jnp.zeros((), count.dtype), carry))[1]


def look_at(
    holdings: Holdings,
    accounts: Accounts,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    lane: Int[Array, " g"],
    move: Float[Array, "v a n"],
) -> Look:
    """What is seen of some pairs.

    Args:
        block: Of each pair.
        path: Of each pair, among all paths.
        lane: Of each pair, among the paths of the round.
        move: Mark - 1.
    """
    venue = accounts.venue[block]
    return Look(
        venue=venue,
        quantity=holdings.quantity[block, path],
        money=holdings.money[block, path],
        move=move[venue, :, lane],
        paid=holdings.paid[venue, :, path],
    )


def by_side(values: Float[Array, "g a b"], quantity: Float[Array, "g a b"]) -> Float[Array, "g a s"]:
    """Sums over the accounts of a block, of longs and of shorts."""
    return jnp.stack([jnp.sum(jnp.where(quantity * sign > 0, values, 0.0), axis=-1) for sign in (1.0, -1.0)], axis=-1)


def trigger(
    holdings: Holdings, accounts: Accounts, chosen: Int[Array, " n"], mark_log: Float[Array, "v a n"]
) -> tuple[Holdings, Waiting]:
    """Find the accounts at or past their trigger, and what waits.

    An account of which something waits is not tested again and not rescued.

    Args:
        chosen: Paths of the round.
        mark_log: Log marks on these.
    """
    move = jnp.expm1(mark_log)
    wanted = _reached(holdings, accounts, mark_log, chosen) | holdings.busy[:, chosen]
    markets = jnp.zeros((*accounts.rate.shape[:2], 2, len(chosen)), mark_log.dtype)
    none = Waiting(markets, markets, markets, markets, markets[:, :, 0], markets[:, 0, 0])

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Waiting]) -> tuple[Holdings, Waiting]:
        now, found = carry
        path = chosen[lane]
        look = look_at(now, accounts, block, path, lane, move)
        before = now.waiting[block, path]
        idle = jnp.all(before <= 0, axis=1) & (accounts.count[block] > 0)
        alive = idle & jnp.any(look.quantity != 0, axis=1)
        tested, begun = _tested(now, alive, block, path)
        hit = tested & short_of_margin(look, accounts)
        partly = only_a_share(look, accounts) & ~begun
        waiting = jnp.where(hit[:, None], coins_to_close(look, accounts, hit, partly), before)
        count = accounts.count[block][:, None]
        usd = count * waiting * (1 + look.move[..., None])
        value = count * waiting * (1 + bankruptcy_move(look, accounts))
        gone = (equity(look, look.move[..., None]) <= 0)[:, None]
        market, ever = look.venue, now.hit[block, path]
        real = block < accounts.venue.shape[0]
        fresh = jnp.where(real[:, None] & hit & ~ever, accounts.count[block], 0.0)
        here = market, slice(None), slice(None), lane

        def of(values: Array) -> Array:
            return by_side(jnp.where(real[:, None, None], values, 0.0), look.quantity)

        found = Waiting(
            solvent=found.solvent.at[here].add(of(jnp.where(gone, 0.0, usd))),
            bankrupt=found.bankrupt.at[here].add(of(jnp.where(gone, usd, 0.0))),
            solvent_value=found.solvent_value.at[here].add(of(jnp.where(gone, 0.0, value))),
            bankrupt_value=found.bankrupt_value.at[here].add(of(jnp.where(gone, value, 0.0))),
            triggered=found.triggered.at[market, :, lane].add(jnp.sum(of(jnp.where(hit[:, None], usd, 0.0)), axis=-1)),
            accounts=found.accounts.at[market, lane].add(jnp.sum(fresh, axis=-1)),
        )
        now = replace(
            now,
            waiting=now.waiting.at[block, path].set(waiting, mode="drop"),
            hit=now.hit.at[block, path].set(ever | hit, mode="drop"),
            closing=now.closing.at[block, path].set(jnp.any(waiting > 0, axis=1), mode="drop"),
            anchor=now.anchor.at[block, :, path].set(mark_log[market, :, lane], mode="drop"),
            radius=now.radius.at[block, path].set(radius(look, tested & ~hit, accounts), mode="drop"),
            busy=now.busy.at[block, path].set(jnp.any(waiting > 0, axis=(1, 2)), mode="drop"),
            rests=_noted(now.rests, block, path, alive & ~tested, (begun & (hit | ~tested)) | (hit & partly)),
        )
        return now, found

    return for_pairs(wanted, accounts.pairs, visit, (holdings, none))


def _tested(
    now: Holdings, alive: Bool[Array, "g b"], block: Int[Array, " g"], path: Int[Array, " g"]
) -> tuple[Bool[Array, "g b"], Bool[Array, "g b"]]:
    """Whom of the living no pause spares the test; and of whom a fraction was closed since the last one passed."""
    if now.rests is None:
        return alive, jnp.zeros_like(alive)
    return alive & (now.rests.until[block, path] <= now.rests.step), now.rests.begun[block, path]


def _noted(
    rests: Rests | None,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    resting: Bool[Array, "g b"],
    begun: Bool[Array, "g b"],
) -> Rests | None:
    """What the test has shown of those that rest."""
    if rests is None:
        return None
    return replace(
        rests,
        begun=rests.begun.at[block, path].set(begun, mode="drop"),
        someone=rests.someone.at[block, path].set(jnp.any(resting, axis=1), mode="drop"),
    )


def _paused(
    rests: Rests | None,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    who: Bool[Array, "g b"],
    pause: Int[Array, " g"],
) -> Rests | None:
    """Those that were closed in part begin their pause."""
    if rests is None:
        return None
    until = jnp.where(who, (rests.step + pause[:, None]).astype(rests.until.dtype), rests.until[block, path])
    return replace(rests, until=rests.until.at[block, path].set(until, mode="drop"))


def close(
    holdings: Holdings,
    accounts: Accounts,
    chosen: Int[Array, " n"],
    move: Float[Array, "v a n"],
    part: Float[Array, "v a n"],
    skipping: Bool[Array, "v a n"],
    straight: Bool[Array, "v a n"],
    fills: Fills,
    direct_fills: Fills,
    world: World,
) -> tuple[Holdings, Settled, Settled]:
    """Close what the engine takes in, at the layers' prices, and settle the accounts of which nothing waits any more.

    One account nets all that it has, two never do. A surplus or deficit is shared by the markets in which the account
    closed in this round, by their USD, and the fee by what they charged in it.

    Args:
        chosen: Paths of the round.
        move: Mark - 1, at the round's opening.
        part: Share of what waits that is taken in.
        skipping: Where slices bankrupt at the mark go to none of book, auction and takeover.
        straight: Where no slice does.
        fills: Where the other slices went.
        direct_fills: Where those that skip went.

    Returns:
        The accounts; sums over the slices that tried all layers, with fees, surplus and deficits of all; and sums over
        the other slices.
    """
    zero = jnp.zeros((*part.shape[:2], 2, len(chosen)), part.dtype)
    none = Settled(zero, zero, zero, zero, zero, zero)
    wanted = holdings.busy[:, chosen]

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Settled, Settled]) -> tuple[Holdings, Settled, Settled]:
        now, normal, direct = carry
        path = chosen[lane]
        look = look_at(now, accounts, block, path, lane, move)
        market, mark = look.venue, look.move[..., None]
        real = (block < accounts.venue.shape[0])[:, None, None]
        waits, count = now.waiting[block, path], accounts.count[block]
        have = equity(look, mark)
        sign = jnp.sign(look.quantity)
        zero_at = bankruptcy_move(look, accounts)
        skips = straight[market, :, lane][..., None] | (skipping[market, :, lane][..., None] & (have <= 0)[:, None])
        went = _chosen(fills, direct_fills, skips, sign, market, lane)
        closed = waits * part[market, :, lane][..., None]
        fixed, earned, fee = _average(went, market, world)
        price = fixed + earned + (1 - fixed) * (1 + zero_at)
        owed, pause = closed * fee, accounts.pause[market]
        now, paid, surplus, loss = _settled(now, look, block, path, closed, price, owed, pause)
        by_usd = _shares(closed * (1 + mark))
        by_fee = jnp.where(jnp.any(owed > 0, axis=1, keepdims=True), _shares(owed), by_usd)

        def posted(to: Array, values: Array) -> Array:
            sums = by_side(jnp.where(real, values * count[:, None], 0.0), look.quantity)
            return to.at[market, :, :, lane].add(sums)

        def traded(to: Settled, here: Array) -> Settled:
            coins = jnp.where(here, closed, 0.0)
            return replace(
                to,
                quantity=posted(to.quantity, coins),
                bankruptcy=posted(to.bankruptcy, coins * (1 + zero_at)),
                proceeds=posted(to.proceeds, coins * price),
            )

        normal, direct = traded(normal, ~skips), traded(direct, skips)
        normal = replace(
            normal,
            fee=posted(normal.fee, by_fee * paid[:, None]),
            surplus=posted(normal.surplus, by_usd * surplus[:, None]),
            deficit=posted(normal.deficit, by_usd * loss[:, None]),
        )
        return now, normal, direct

    return for_pairs(wanted, accounts.pairs, visit, (holdings, none, none))


def _shares(values: Float[Array, "g a b"]) -> Float[Array, "g a b"]:
    """Of what an account's positions add up to, each one's share; 0 where that is nothing."""
    return values / jnp.maximum(jnp.sum(values, axis=1, keepdims=True), 1e-30)


def _chosen(
    fills: Fills,
    direct: Fills,
    skips: Bool[Array, "g a b"],
    sign: Float[Array, "g a b"],
    venue: Int[Array, " g"],
    lane: Int[Array, " g"],
) -> Fills:
    """Where each slice goes, by its side and by whether it skips the first layers."""

    def pick(one: Array, two: Array) -> Array:
        one, two = one[venue, :, :, lane], two[venue, :, :, lane]
        long, short = (jnp.where(skips, two[:, :, s, None], one[:, :, s, None]) for s in (0, 1))
        return jnp.where(sign >= 0, long, short)

    return jax.tree.map(pick, fills, direct)


def _average(
    went: Fills, venue: Int[Array, " g"], world: World
) -> tuple[Float[Array, "g a b"], Float[Array, "g a b"], Float[Array, "g a b"]]:
    """Share closed at the layers' own prices, what it earned, and the fee owed, per coin."""
    at_bankruptcy = (world.rules.adl_close[venue] == ADL_BANKRUPTCY)[:, None, None]
    adl = jnp.where(at_bankruptcy, 0.0, went.adl)
    fixed = went.book + went.auction + went.remainder + adl
    earned = (
        went.book * went.book_move
        + went.auction * went.auction_move
        + went.remainder * went.mark_move
        + adl * went.adl_move
    )
    charged = went.book * (1 + went.book_move) + went.auction * (1 + went.auction_move)
    return fixed, earned, world.rules.fee[venue][:, None, None] * charged


def _settled(
    now: Holdings,
    look: Look,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    closed: Float[Array, "g a b"],
    price: Float[Array, "g a b"],
    owed: Float[Array, "g a b"],
    pause: Int[Array, " g"],
) -> tuple[Holdings, Float[Array, "g b"], Float[Array, "g b"], Float[Array, "g b"]]:
    """The accounts after the trades; and what they paid as fee, left as surplus, and lacked [USD]."""
    sign, mark = jnp.sign(look.quantity), look.move[..., None]
    before = now.waiting[block, path]
    waiting = jnp.maximum(before - closed, 0.0)
    # Through what stays open, so that a position of which all waits ends at zero however the compiler rounds.
    quantity = sign * ((jnp.abs(look.quantity) - before) + waiting)
    money = look.money + jnp.sum(sign * closed * (price - 1 - look.paid[..., None]), axis=1)
    debt = now.fee[block, path] + jnp.sum(owed, axis=1)
    have = money + jnp.sum(quantity * (mark - look.paid[..., None]), axis=1)
    done = jnp.all(waiting <= 0, axis=1) & jnp.any(closed > 0, axis=1)
    gone = done & jnp.all(quantity == 0, axis=1)
    fee = jnp.where(done, jnp.minimum(debt, jnp.maximum(have, 0.0)), 0.0)
    surplus = jnp.where(gone, jnp.maximum(have - fee, 0.0), 0.0)
    loss = jnp.where(gone, jnp.maximum(-have, 0.0), 0.0)
    now = replace(
        now,
        quantity=now.quantity.at[block, path].set(quantity, mode="drop"),
        waiting=now.waiting.at[block, path].set(waiting, mode="drop"),
        money=now.money.at[block, path].set(jnp.where(gone, 0.0, money - fee), mode="drop"),
        fee=now.fee.at[block, path].set(jnp.where(done, 0.0, debt), mode="drop"),
        # Who was closed in part is tested again at once, or looked at for the pause.
        radius=now.radius.at[block, path].set(
            jnp.where(jnp.any(done & ~gone, axis=1), LOOK, now.radius[block, path]), mode="drop"
        ),
        busy=now.busy.at[block, path].set(jnp.any(waiting > 0, axis=(1, 2)), mode="drop"),
        rests=_paused(now.rests, block, path, done & ~gone, pause),
    )
    return now, fee, surplus, loss


def restless(
    holdings: Holdings,
    accounts: Accounts,
    mark_log: Float[Array, "v a n"],
    budget: Float[Array, "v a #n"],
    chosen: Int[Array, " n"],
) -> Bool[Array, " n"]:
    """Whether a round would do anything to an account.

    Args:
        budget: What the engine can still take in [USD].
        chosen: The paths that are asked about.
    """
    served = jnp.any(budget > 1.0, axis=1)[accounts.venue]
    waits = holdings.busy[:, chosen] & served
    return jnp.any(_reached(holdings, accounts, mark_log, chosen) | waits, axis=0)


def _reached(
    holdings: Holdings, accounts: Accounts, mark_log: Float[Array, "v a n"], chosen: Int[Array, " n"]
) -> Bool[Array, "k n"]:
    """Blocks in which a mark has moved beyond the radius since they were looked at."""
    moved = jnp.max(jnp.abs(mark_log[accounts.venue] - holdings.anchor[..., chosen]), axis=1)
    return moved > holdings.radius[:, chosen]
