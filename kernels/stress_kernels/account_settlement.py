"""Accounts on cross margin whose orders are done: fees, the sale of collateral, what is left and what is missing.

One account nets all that it has, two never do. Fees arise in the settlement currency of a market and go to its pool.
Whatever else an account owes or leaves when its last position is gone is shared by the pools of the markets in which it
closed positions in that round, in proportion to their USD.

A debt in coins is taken over by the pools and becomes one in USD. For what is owed in USD the same share of every coin
is sold in the spot market. All that the accounts of a venue sell of an asset in a round is one order; it pays the mean
price along its own push of the index.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_margin import Look, equity, marked
from stress_kernels.account_rounds import Cross, exists, look_at, of_block
from stress_kernels.accounts import Accounts, Holdings, Rests
from stress_kernels.money import add_up
from stress_kernels.price import own_index_push
from stress_kernels.pytree import pytree
from stress_kernels.world import World

_MOST_TURNS = 60
"""Of the search for the price of a sale; each gains about two digits."""


@pytree
class Left:
    """What accounts have paid, left and lacked in a round."""

    fee: Float[Array, "v a n"]
    """[USD, or coins where the contract is inverse]"""
    cash: Float[Array, "f n"]
    """Surplus that pools receive, and what they are paid for coins owed [USD]."""
    coins: Float[Array, "f a n"] | None
    """Surplus that pools receive, less coins owed."""
    value: Float[Array, "f n"]
    """Worth of fees and surplus [USD]."""
    deficit: Float[Array, "f n"]
    """[USD]"""
    sold: Float[Array, "v a n"] | None
    """Collateral sold in the spot market [coins]."""
    brought: Float[Array, "v a n"] | None
    """What it brought [USD]."""


@pytree
class Due:
    """Accounts of some pairs that are settled, and what they owe."""

    partly: Bool[Array, "g b"]
    """Those that go on."""
    gone: Bool[Array, "g b"]
    """Those without a position."""
    closed: Float[Array, "g a b"]
    """In the round [USD]."""
    fees: Float[Array, "g a b"]
    """[USD or coins]"""
    cash: Float[Array, "g b"]
    """From which fees in USD are paid: equity, or cash less debts in coins [USD]."""
    coins: Float[Array, "g a b"]
    """Owned, at least 0."""
    debt: Float[Array, "g a b"]
    """In coins, positive."""
    need: Float[Array, "g b"]
    """Owed in USD and not covered by cash [USD]."""


def settle(cross: Cross, u_global: Float[Array, "a n"], depth: Float[Array, "a n"], world: World) -> tuple[Cross, Left]:
    """Settle the accounts of which nothing waits any more, and winners whose last position was closed.

    Args:
        cross: The accounts, after the trades of the round.
        u_global: Imbalances at its opening [1].
        depth: Depth divisor.
        world: Rules and parameters.
    """
    accounts, chosen = cross.accounts, cross.chosen
    price = _sale_price(cross, u_global, depth, world)
    market = jnp.zeros((*world.adv.shape, len(chosen)), accounts.quantity.dtype)
    pool = jnp.zeros((world.pool_cash.shape[0], len(chosen)), market.dtype)
    some = price is not None
    none = Left(
        fee=market,
        cash=pool,
        coins=jnp.zeros((len(pool), *market.shape[1:]), market.dtype) if some else None,
        value=pool,
        deficit=pool,
        sold=market if some else None,
        brought=market if some else None,
    )

    def visit(block: Array, lane: Array, carry: tuple[Holdings, Left]) -> tuple[Holdings, Left]:
        now, left = carry
        here = replace(cross, holdings=now)
        look = look_at(here, block, chosen[lane], lane)
        due = _due(now, look, block, chosen[lane])
        end = _ending(here, due, look, block, lane, price, world)
        left = _add(left, here, due, end, look, block, lane, world)
        return _after(now, block, chosen[lane], due, end, accounts), left

    holdings, left = cross.pairs(cross.holdings.settling, visit, (cross.holdings, none))
    return replace(cross, holdings=holdings), left


def _due(now: Holdings, look: Look, block: Int[Array, " g"], path: Int[Array, " g"]) -> Due:
    at, closed, fees = marked(look), now.closed[block, path], now.due[block, path]
    touched = jnp.any(closed > 0, axis=1)
    done = now.closing[block, path] & jnp.all(now.waiting[block, path] <= 0, axis=1) & touched
    flat = jnp.all(look.quantity == 0, axis=1)
    gone = flat & touched
    have = equity(look, at)
    if look.owned is None:
        coins = debt = jnp.zeros_like(fees)
        in_usd = add_up(fees, 1)
        cash = have
    else:
        owned = jnp.where(gone[:, None], look.owned.coins, 0.0)
        coins, debt = jnp.maximum(owned, 0.0), jnp.maximum(-owned, 0.0)
        in_usd = add_up(jnp.where(look.owned.inverse[..., None], 0.0, fees), 1)
        cash = jnp.where(gone, look.money - at.of_coins(debt), have)
    need = jnp.where(gone, jnp.maximum(in_usd - cash, 0.0), 0.0)
    return Due(partly=done & ~flat, gone=gone, closed=closed, fees=fees, cash=cash, coins=coins, debt=debt, need=need)


def _to_sell(due: Due, price: Float[Array, "g a"]) -> Float[Array, "g a b"]:
    """Coins that are sold: the same share of each, as much as is needed at these prices, or all."""
    worth = add_up(due.coins * price[..., None], 1)
    # Bounded as a whole: of two comparisons of nearly equal sums the compiler may round one otherwise than the other.
    return jnp.minimum(due.need / jnp.maximum(worth, 1e-30), 1.0)[:, None] * due.coins


def _sale_price(
    cross: Cross, u_global: Float[Array, "a n"], depth: Float[Array, "a n"], world: World
) -> Float[Array, "v a n"] | None:
    """Mean price of what a venue's accounts sell of each coin [USD]; None where coins are nobody's money.

    The price depends on how much is sold, and that on the price: repeated from the spot price until it stands still, on
    each path by itself.
    """
    accounts, chosen, spot_log = cross.accounts, cross.chosen, cross.quotes.spot
    if accounts.collateral is None or spot_log is None:
        return None
    spot = jnp.exp(spot_log)
    settling = cross.holdings.settling
    tolerance = 8 * jnp.finfo(spot.dtype).eps

    def turn(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        price, moving, turns = carry

        def visit(block: Array, lane: Array, sold: Array) -> Array:
            look = look_at(cross, block, chosen[lane], lane)
            due = _due(cross.holdings, look, block, chosen[lane])
            each = _to_sell(due, price[look.venue, :, lane]) * accounts.count[block][:, None]
            each = jnp.where(exists(cross, block)[:, None], of_block(each), 0.0)
            return sold.at[look.venue, :, lane].add(each)

        sold = cross.pairs(settling & moving[cross.lane][None], visit, jnp.zeros_like(price))
        found = spot * jnp.exp(own_index_push(-sold * spot, u_global, depth, world))
        found = jnp.where(moving, found, price)
        apart = jnp.any(jnp.abs(found - price) > tolerance * price, axis=(0, 1))
        return found, moving & apart, turns + 1

    start = spot, jnp.any(settling, axis=0)[chosen], jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]) & (carry[2] < _MOST_TURNS), turn, start)[0]


@pytree
class Ending:
    """What becomes of settled accounts, and what they leave."""

    money: Float[Array, "g b"]
    coins: Float[Array, "g a b"] | None
    fees: Float[Array, "g a b"]
    """Paid [USD or coins]."""
    surplus: Float[Array, "g b"]
    """To the pools [USD]."""
    given: Float[Array, "g a b"]
    """The same in coins."""
    loss: Float[Array, "g b"]
    """[USD]"""
    sold: Float[Array, "g a b"]
    """[coins]"""
    brought: Float[Array, "g a b"]
    """[USD]"""


def _ending(
    cross: Cross,
    due: Due,
    look: Look,
    block: Int[Array, " g"],
    lane: Int[Array, " g"],
    price: Float[Array, "v a n"] | None,
    world: World,
) -> Ending:
    """Sale, fees, and what is left; nothing of accounts that are not settled."""
    gone = due.gone
    sold = brought = jnp.zeros_like(due.fees)
    if price is not None:
        sold = _to_sell(due, price[look.venue, :, lane])
        brought = sold * price[look.venue, :, lane][..., None]
    cash, coins = due.cash + add_up(brought, 1), due.coins - sold
    fees = _fees(due, cash, coins, look)
    coin = jnp.zeros_like(fees, bool) if look.inverse is None else look.inverse[..., None]
    in_usd, in_coins = add_up(jnp.where(coin, 0.0, fees), 1), jnp.where(coin, fees, 0.0)
    cash, coins = cash - in_usd, coins - in_coins
    forced = cross.holdings.closing[block, cross.chosen[lane]]
    gives = gone & forced & world.rules.surplus_to_pool[look.venue][:, None]
    surplus, given = jnp.where(gives, jnp.maximum(cash, 0.0), 0.0), jnp.where(gives[:, None], coins, 0.0)
    loss = jnp.where(gone, jnp.maximum(-cash, 0.0), 0.0)
    owned = None
    if look.owned is not None:
        owned = jnp.where(gone[:, None], coins - given, look.owned.coins - in_coins)
    return Ending(
        money=jnp.where(gone, cash + loss - surplus, look.money - in_usd),
        coins=owned,
        fees=fees,
        surplus=surplus,
        given=given,
        loss=loss,
        sold=sold,
        brought=brought,
    )


def _fees(due: Due, cash: Float[Array, "g b"], coins: Float[Array, "g a b"], look: Look) -> Float[Array, "g a b"]:
    """Fees that are paid: up to the equity of who goes on, up to what is left of each currency of who is gone."""
    usd = due.fees * marked(look).money

    def covered(owed: Float[Array, "g b"]) -> Float[Array, "g a b"]:
        have = jnp.maximum(cash, 0.0)
        share = jnp.where(owed > have, have / jnp.where(owed > 0, owed, 1.0), 1.0)
        return share[:, None] * due.fees

    partly = jnp.where(due.partly[:, None], covered(add_up(usd, 1)), 0.0)
    if look.inverse is None:
        return jnp.where(due.gone[:, None], covered(add_up(usd, 1)), partly)
    coin = look.inverse[..., None]
    in_usd = add_up(jnp.where(coin, 0.0, due.fees), 1)
    gone = jnp.where(coin, jnp.minimum(due.fees, jnp.maximum(coins, 0.0)), covered(in_usd))
    return jnp.where(due.gone[:, None], gone, partly)


def _add(
    left: Left,
    cross: Cross,
    due: Due,
    end: Ending,
    look: Look,
    block: Int[Array, " g"],
    lane: Int[Array, " g"],
    world: World,
) -> Left:
    """Add up what some pairs leave, over all copies."""
    at, venue = marked(look), look.venue
    count = jnp.where(exists(cross, block)[:, None], cross.accounts.count[block], 0.0)
    share = due.closed / jnp.maximum(jnp.sum(due.closed, axis=1, keepdims=True), 1e-30)
    behind = jnp.moveaxis(world.behind[:, venue], 0, 1)
    # Term by term, not by products of matrices, whose order of summation is the compiler's choice.
    of_pools = add_up(behind[..., None] * (share * count[:, None])[:, None], 2)

    def pools(total: Float[Array, "f n"], amounts: Float[Array, "g b"]) -> Float[Array, "f n"]:
        return total.at[:, lane].add(of_block(of_pools * amounts[:, None]).T)

    def markets(total: Float[Array, "v a n"], amounts: Float[Array, "g a b"]) -> Float[Array, "v a n"]:
        return total.at[venue, :, lane].add(of_block(count[:, None] * amounts))

    fees = add_up(behind * of_block(end.fees * at.money * count[:, None])[:, None], 2)
    left = replace(
        left,
        fee=markets(left.fee, end.fees),
        cash=pools(left.cash, end.surplus),
        value=pools(left.value, end.surplus).at[:, lane].add(fees.T),
        deficit=pools(left.deficit, end.loss),
    )
    if left.coins is None or left.sold is None or left.brought is None:
        return left
    moved = of_block(of_pools[:, :, None] * (end.given - due.debt)[:, None])
    return replace(
        left,
        cash=pools(left.cash, at.of_coins(due.debt)),
        coins=left.coins.at[:, :, lane].add(jnp.moveaxis(moved, 0, -1)),
        value=pools(left.value, at.of_coins(end.given)),
        sold=markets(left.sold, end.sold),
        brought=markets(left.brought, end.brought),
    )


def _after(
    now: Holdings, block: Int[Array, " g"], path: Int[Array, " g"], due: Due, end: Ending, accounts: Accounts
) -> Holdings:
    """The accounts when they are settled."""
    changed = due.gone | due.partly

    def put(table: Array, value: Array | float, which: Array) -> Array:
        return table.at[block, path].set(jnp.where(which, value, table[block, path]), mode="drop")

    again = jnp.where(jnp.any(due.partly, axis=1), block, len(accounts.venue))
    return replace(
        now,
        money=put(now.money, end.money, changed),
        coins=None if now.coins is None or end.coins is None else put(now.coins, end.coins, changed[:, None]),
        due=put(now.due, jnp.zeros_like(due.fees), changed[:, None]),
        # Zeros that depend on what was read: else the compiler writes first, and reads from a copy of the whole table.
        closed=now.closed.at[block, path].set(jnp.minimum(due.closed, 0.0), mode="drop"),
        settling=now.settling.at[block, path].set(False, mode="drop"),
        # Who was closed in part is tested again at once, or looked at for the pause.
        watched=now.watched.look_again(accounts.words, again, path),
        rests=_paused(now.rests, block, path, due.partly, accounts.pause[accounts.venue[block]]),
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
