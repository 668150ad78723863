"""The insurance funds in a round: receipts, takeovers, deficits, socialised losses; and the ledger of who paid whom."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels import adl
from stress_kernels.account_winners import Cross, socialise
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.settlement import Fills, Settled
from stress_kernels.state import Funds, Hour, Record, Stocks, pool_equity
from stress_kernels.world import ADL_BANKRUPTCY, World, side_sign


@pytree
class Claims:
    """What was closed in a round, and how."""

    normal: Settled
    direct: Settled
    """Slices that skipped book, auction and takeover."""
    fills: Fills
    direct_fills: Fills
    mark_move: Float[Array, "v a p"]


@pytree
class Standing:
    """The accounts that are left after a round's closings and deleveraging."""

    reach: Float[Array, "v a s e p"]
    kept: Kept
    taken: Float[Array, "v a s e p"]
    idle: Bool[Array, "v a s e p"]
    mark_move: Float[Array, "v a p"]

    def alive(self, ladders: Ladders) -> adl.Alive:
        """What can be deleveraged or socialised."""
        return adl.alive(ladders, self.reach, self.kept, self.taken, self.mark_move, self.idle)


@pytree
class Outcome:
    """Stocks, reports and accounts after the pools have paid."""

    funds: Funds
    stocks: Stocks
    hour: Hour
    kept: Kept
    taken: Float[Array, "v a s e p"]
    cross: Cross | None


@pytree
class Trades:
    """Coins and cash by counterparty, per market and side of the closed accounts."""

    book: Float[Array, "v a s p"]
    book_cash: Float[Array, "v a s p"]
    auction: Float[Array, "v a s p"]
    auction_cash: Float[Array, "v a s p"]
    takeover: Float[Array, "v a s p"]
    takeover_cash: Float[Array, "v a s p"]
    adl: Float[Array, "v a s p"]
    adl_cash: Float[Array, "v a s p"]
    remainder: Float[Array, "v a s p"]
    remainder_cash: Float[Array, "v a s p"]


def trades(claims: Claims, world: World) -> Trades:
    """Split what was closed by who bought it (a short: sold it)."""
    one, two, how, also = claims.normal, claims.direct, claims.fills, claims.direct_fills
    mark = 1 + claims.mark_move[:, :, None]
    book, auction = one.quantity * how.book, one.quantity * how.auction
    remainder = one.quantity * how.remainder + two.quantity * also.remainder
    at_bankruptcy = how.adl * one.bankruptcy + also.adl * two.bankruptcy
    winners = how.adl * one.quantity + also.adl * two.quantity
    close = world.rules.adl_close[:, None, None, None]
    return Trades(
        book=book,
        book_cash=book * (1 + how.book_move),
        auction=auction,
        auction_cash=auction * (1 + how.auction_move),
        takeover=one.quantity * how.takeover,
        takeover_cash=one.bankruptcy * how.takeover,
        adl=winners,
        adl_cash=jnp.where(close == ADL_BANKRUPTCY, at_bankruptcy, winners * (1 + how.adl_move)),
        remainder=remainder,
        remainder_cash=remainder * mark,
    )


def settle_pools(
    funds: Funds,
    record: Record,
    claims: Claims,
    done: Trades,
    standing: Standing,
    ladders: Ladders,
    world: World,
    cross: Cross | None = None,
) -> Outcome:
    """Book a round: trades, fees, surplus and deficits, then what the pools cannot pay.

    A pool pays up to its equity at the round's marks; the rest is taken from unrealised profit in its markets, and
    what even that does not cover leaves the pool below zero.
    """
    one, two = claims.normal, claims.direct
    keeps = world.rules.surplus_to_pool[:, None, None, None]
    received = add_up(one.fee + two.fee + jnp.where(keeps, one.surplus + two.surplus, 0.0), 2)
    lacking = add_up(one.deficit + two.deficit, 2)
    stocks = _book_trades(record.stocks, done, one.proceeds + two.proceeds, one.quantity + two.quantity)

    receipts, deficits = world.to_pools(received), world.to_pools(lacking)
    sign = side_sign(one.fee)
    spent = world.to_pools(add_up(sign * done.takeover_cash, 2))
    funds = replace(
        funds,
        cash=funds.cash.add(receipts).add(-spent),
        inventory=funds.inventory.add(add_up(sign * done.takeover, 2)),
    )
    equity = pool_equity(funds, claims.mark_move, world)
    short = deficits - jnp.minimum(deficits, jnp.maximum(equity, 0.0))
    socialised, per_coin, kappa = jax.lax.cond(
        jnp.any(short > 0),
        lambda: adl.socialise(short, standing.alive(ladders), world, cross),
        lambda: (jnp.zeros_like(short), jnp.zeros_like(standing.taken), jnp.zeros_like(standing.mark_move)),
    )
    from_winners = add_up(world.pools_of_venue[..., None] * socialised[None], 1)
    traders = stocks.traders_cash.add(-add_up(received, 1)).add(add_up(lacking, 1)).add(-from_winners)
    hour, kept = record.hour, standing.kept
    return Outcome(
        funds=replace(funds, cash=funds.cash.add(socialised).add(-deficits)),
        stocks=replace(
            stocks,
            traders_cash=traders,
            gross_cash=stocks.gross_cash + add_up(receipts + deficits + socialised, 0),
        ),
        hour=replace(
            hour,
            surplus=hour.surplus + receipts,
            deficit=hour.deficit + deficits,
            socialised=hour.socialised + socialised,
        ),
        kept=replace(kept, shift=kept.shift + side_sign(per_coin) * kept.scale * per_coin),
        taken=standing.taken + per_coin,
        cross=None if cross is None else socialise(cross, world.to_markets(short) > 0, kappa),
    )


def _book_trades(
    stocks: Stocks, done: Trades, proceeds: Float[Array, "v a s p"], closed: Float[Array, "v a s p"]
) -> Stocks:
    """Post every trade to both of its sides; the pools' side is posted with their other cash."""
    sign = side_sign(proceeds)

    def market(x: Float[Array, "v a s p"]) -> Float[Array, "v a p"]:
        return add_up(sign * x, 2)

    def venue(x: Float[Array, "v a s p"]) -> Float[Array, "v p"]:
        return add_up(market(x), 1)

    absolute = done.book_cash + done.auction_cash + done.takeover_cash + done.adl_cash + done.remainder_cash
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(venue(proceeds)).add(-venue(done.adl_cash)),
        makers_cash=stocks.makers_cash.add(-venue(done.auction_cash)),
        rest_cash=stocks.rest_cash.add(-venue(done.book_cash)).add(-venue(done.remainder_cash)),
        traders=stocks.traders.add(-sign * closed).add((sign * done.adl)[:, :, ::-1]),
        makers=stocks.makers.add(market(done.auction)),
        rest=stocks.rest.add(market(done.book)).add(market(done.remainder)),
        gross_cash=stocks.gross_cash + add_up(absolute, 0, 1, 2),
        gross_coins=stocks.gross_coins + add_up(closed, 0, 1, 2),
    )


def exhausted(equity: Float[Array, "f p"]) -> Bool[Array, "f p"]:
    """Equity at or below zero, to a dollar."""
    return equity <= 1.0
