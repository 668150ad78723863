"""What the layers do to accounts on cross margin: every slice at the prices of those who take it."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels import contracts
from stress_kernels.account_margin import Look, bankruptcy_gain, marked
from stress_kernels.account_queue import Turn
from stress_kernels.account_rounds import BANKRUPT, SOLVENT, Cross, base, by_side, exists, kinds, look_at
from stress_kernels.accounts import Holdings
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Fills, Settled
from stress_kernels.world import ADL_BANKRUPTCY, World


@pytree
class Routes:
    """Where the slices of a market side go."""

    normal: Fills
    near: Fills
    """Of accounts that a vault takes."""
    direct: Fills
    """Of those that skip book, auction and takeover."""
    skipping: Bool[Array, "v a n"]
    """Where slices bankrupt at the mark are direct."""
    straight: Bool[Array, "v a n"]
    """Where all are."""


def close(cross: Cross, turn: Turn, routes: Routes, world: World) -> tuple[Cross, Settled, Settled, Settled]:
    """Close what the engine takes in, at the layers' prices; `account_settlement.settle` does the rest.

    Args:
        cross: The accounts.
        turn: Whose turn it is.
        routes: Where slices go.
        world: Rules and parameters.

    Returns:
        The accounts; and sums over the slices that tried all layers, over those of them that a vault takes, and over
        those that skipped the first ones.
    """
    accounts, chosen = cross.accounts, cross.chosen
    zero = jnp.zeros_like(routes.normal.book)
    none = Settled(zero, zero, zero, zero, zero, zero, zero)
    terms = tuple(_terms(fills, world) for fills in (routes.normal, routes.near, routes.direct))

    def visit(block: Array, lane: Array, carry: tuple[Holdings, tuple[Settled, ...]]) -> tuple[Holdings, tuple]:
        now, sums = carry
        path = chosen[lane]
        look = look_at(replace(cross, holdings=now), block, path, lane)
        route = _route(look, kinds(look, accounts, world), routes, lane)
        closed = now.waiting[block, path] * turn.admitted(now.number[block, path], look.venue, lane)
        zero_at = bankruptcy_gain(look, accounts)
        went = _chosen(terms, route, jnp.sign(look.quantity), look.venue, lane)
        of_vault = _vault_gain(look, zero_at, world)
        earned = went.fixed + went.at_zero * zero_at + went.vault * of_vault
        vault = went.vault * (base(look) + of_vault)
        held = jnp.where(exists(cross, block)[:, None, None], closed * accounts.count[block][:, None], 0.0)
        # Worked out once: else again for every sum and table that it goes into.
        closed, zero_at, earned, vault, held, route, fee = jax.lax.optimization_barrier(
            (closed, zero_at, earned, vault, held, route, went.fee)
        )

        def traded(to: Settled, of: int) -> Settled:
            coins = jnp.where(route == of, held, 0.0)

            def post(total: Array, values: Array) -> Array:
                return total.at[look.venue, :, :, lane].add(by_side(values, look.quantity))

            return replace(
                to,
                quantity=post(to.quantity, coins),
                bankruptcy=post(to.bankruptcy, coins * (base(look) + zero_at)),
                proceeds=post(to.proceeds, coins * (base(look) + earned)),
                vault=post(to.vault, coins * vault),
            )

        now = _traded(now, look, block, path, closed, earned, closed * fee)
        return now, tuple(traded(to, of) for of, to in enumerate(sums))

    assert cross.touched is not None
    holdings, sums = cross.pairs(cross.touched, visit, (cross.holdings, (none, none, none)))
    return replace(cross, holdings=holdings), *sums


def _route(look: Look, kind: Int[Array, "g b"], routes: Routes, lane: Int[Array, " g"]) -> Int[Array, "g a b"]:
    """0: all layers; 1: all, and a vault takes it; 2: the first ones are skipped."""
    straight, skipping = (x[look.venue, :, lane][..., None] for x in (routes.straight, routes.skipping))
    direct = straight | (skipping & (kind == BANKRUPT)[:, None])
    # Where a pool is sound, an account without equity tries all layers, and a vault takes it like one with too little.
    return jnp.where(direct, 2, jnp.where((kind == SOLVENT)[:, None], 0, 1))


@pytree
class Terms:
    """What a contract of a slice earns, by market and side: fixed + at_zero p + vault w, where p is its gain at its
    bankruptcy price, and w at the price at which a vault takes it."""

    fixed: Float[Array, "v a s n"]
    at_zero: Float[Array, "v a s n"]
    vault: Float[Array, "v a s n"]
    fee: Float[Array, "v a s n"]
    """Owed on one [USD or coins]."""


def _terms(fills: Fills, world: World) -> Terms:
    """Mean over the layers."""

    def gain(move: Float[Array, "v a s n"]) -> Float[Array, "v a s n"]:
        return contracts.gain(move, world.inverse)

    at_bankruptcy = (world.rules.adl_close == ADL_BANKRUPTCY)[:, None, None, None]
    fixed = fills.book * gain(fills.book_move) + fills.auction * gain(fills.auction_move)
    fixed = fixed + fills.remainder * gain(fills.mark_move)
    charged = fills.book * (1 + fills.book_move) + fills.auction * (1 + fills.auction_move)
    if world.inverse is not None:
        in_coins = (fills.book + fills.auction) / (1 + fills.mark_move)
        charged = jnp.where(world.inverse[:, :, None, None], in_coins, charged)
    return Terms(
        fixed=fixed + jnp.where(at_bankruptcy, 0.0, fills.adl * gain(fills.adl_move)),
        at_zero=fills.takeover + jnp.where(at_bankruptcy, fills.adl, 0.0),
        vault=fills.vault,
        fee=world.rules.fee[:, None, None, None] * charged,
    )


def _chosen(
    terms: tuple[Terms, ...],
    route: Int[Array, "g a b"],
    sign: Float[Array, "g a b"],
    venue: Int[Array, " g"],
    lane: Int[Array, " g"],
) -> Terms:
    """What each slice earns, by its side and its route."""

    def pick(*each: Array) -> Array:
        of = [x[venue, :, :, lane] for x in each]
        sides = []
        for s in (0, 1):
            normal, near, direct = (x[:, :, s, None] for x in of)
            sides.append(jnp.where(route == 2, direct, jnp.where(route == 1, near, normal)))
        return jnp.where(sign >= 0, *sides)

    return jax.tree.map(pick, *terms)


def _vault_gain(look: Look, zero_at: Float[Array, "g a b"], world: World) -> Float[Array, "g a b"]:
    """Gain at the price at which a vault takes a position: the bankruptcy price within the bounds of its profit."""
    if world.vaults is None:
        return jnp.zeros_like(zero_at)
    mark, sign = 1 + look.move[..., None], jnp.sign(look.quantity)
    least, most = (x[look.venue][:, None, None] for x in (world.vaults.least, world.vaults.most))
    price = zero_at
    if look.inverse is not None:
        below = 1 - zero_at
        price = jnp.where(look.inverse[..., None], zero_at / jnp.where(below == 0, 1e-30, below), zero_at)
    profit = sign * (1 - (1 + price) / mark)
    bounded = jnp.clip(profit, least, most)
    moved = contracts.gain(mark * (1 - sign * bounded) - 1, look.inverse)
    return jnp.where(bounded == profit, zero_at, moved)


def receive(
    now: Holdings, look: Look, block: Int[Array, " g"], path: Int[Array, " g"], amounts: Float[Array, "g a b"]
) -> Holdings:
    """Add to what accounts own, in the settlement currencies of their markets."""
    if look.inverse is None or now.coins is None:
        return replace(now, money=now.money.at[block, path].add(add_up(amounts, 1), mode="drop"))
    coin = look.inverse[..., None]
    return replace(
        now,
        money=now.money.at[block, path].add(add_up(jnp.where(coin, 0.0, amounts), 1), mode="drop"),
        coins=now.coins.at[block, path].add(jnp.where(coin, amounts, 0.0), mode="drop"),
    )


def _traded(
    now: Holdings,
    look: Look,
    block: Int[Array, " g"],
    path: Int[Array, " g"],
    closed: Float[Array, "g a b"],
    gain: Float[Array, "g a b"],
    fee: Float[Array, "g a b"],
) -> Holdings:
    """The accounts after their trades."""
    sign, before = jnp.sign(look.quantity), now.waiting[block, path]
    waiting = jnp.maximum(before - closed, 0.0)
    # Through what stays open, so that a position of which all waits ends at zero however the compiler rounds.
    quantity = sign * ((jnp.abs(look.quantity) - before) + waiting)
    now = receive(now, look, block, path, sign * closed * (gain - look.paid[..., None]))
    done = jnp.all(waiting <= 0, axis=1) & jnp.any(closed > 0, axis=1)
    return replace(
        now,
        quantity=now.quantity.at[block, path].set(quantity, mode="drop"),
        waiting=now.waiting.at[block, path].set(waiting, mode="drop"),
        due=now.due.at[block, path].add(fee, mode="drop"),
        closed=now.closed.at[block, path].set(closed * marked(look).unit, mode="drop"),
        settling=now.settling.at[block, path].set(jnp.any(done, axis=1), mode="drop"),
        busy=now.busy.at[block, path].set(jnp.any(waiting > 0, axis=(1, 2)), mode="drop"),
    )
