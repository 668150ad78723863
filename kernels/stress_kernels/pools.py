"""The insurance funds in a round: receipts, takeovers, deficits, socialised losses; and transfers between them."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels import adl
from stress_kernels.account_rounds import Cross
from stress_kernels.account_settlement import Left
from stress_kernels.account_winners import socialise
from stress_kernels.contracts import Worth
from stress_kernels.funds import Funds, pool_equity
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.layers import share
from stress_kernels.ledger import Stocks, book_accounts, book_ladders, book_socialised, book_trades
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.rows import when
from stress_kernels.state import Hour, Record
from stress_kernels.trades import Claims, Trades
from stress_kernels.world import Transfers, World, side_sign


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


def settle_pools(
    funds: Funds,
    record: Record,
    claims: Claims,
    done: Trades,
    standing: Standing,
    ladders: Ladders,
    world: World,
    cross: Cross | None = None,
    left: Left | None = None,
) -> Outcome:
    """Book a round: trades, fees, surplus and deficits, then what the pools cannot pay.

    A pool pays up to its equity at the round's marks; the rest is taken from unrealised profit in its markets, and
    what even that does not cover leaves the pool below zero.
    """
    keeps = world.rules.surplus_to_pool[:, None, None, None]
    received = add_up(claims.total("fee") + jnp.where(keeps, claims.total("surplus"), 0.0), 2)
    lacking = add_up(claims.total("deficit"), 2)
    receipts, deficits = world.to_pools(received), world.to_pools(lacking)
    stocks = book_trades(record.stocks, done, claims.total("quantity"), claims.total("proceeds"), world)
    stocks = book_ladders(stocks, add_up(received, 1), add_up(lacking, 1), world)
    funds = _took_over(funds, done, world)
    if left is not None:
        stocks, funds = book_accounts(stocks, left, world), _paid_by_accounts(funds, left, world)
        deficits = deficits + left.deficit
    funds, short = charge(funds, receipts, deficits, claims.at, world)
    receipts = receipts if left is None else receipts + left.value
    hour = replace(
        record.hour,
        surplus=record.hour.surplus + receipts,
        deficit=record.hour.deficit + deficits,
        collateral_sold=_sold(record.hour, left, cross),
    )
    before = Outcome(
        funds=funds,
        stocks=stocks,
        hour=hour,
        kept=standing.kept,
        taken=standing.taken,
        cross=cross,
    )
    return when(
        jnp.any(short > 0),
        lambda now: _socialise(now, short, standing.alive(ladders), claims.at, world),
        before,
    )


def charge(
    funds: Funds, receipts: Float[Array, "f p"], deficits: Float[Array, "f p"], at: Worth, world: World
) -> tuple[Funds, Float[Array, "f p"]]:
    """Pools receive, and pay all deficits; and the part of these that is more than their equity [USD]."""
    funds = replace(funds, cash=funds.cash.add(receipts))
    short = deficits - jnp.minimum(deficits, jnp.maximum(pool_equity(funds, at, world), 0.0))
    return replace(funds, cash=funds.cash.add(-deficits)), short


def _socialise(now: Outcome, short: Float[Array, "f p"], alive: adl.Alive, at: Worth, world: World) -> Outcome:
    """Take what pools cannot pay from winners."""
    funds, kept, cross = now.funds, now.kept, now.cross
    socialised, per_coin, kappa, others = adl.socialise(short, alive, world, cross)
    funds = replace(funds, cash=funds.cash.add(socialised - world.to_pools(others)))
    if cross is not None:
        funds = funds.receive(others / at.money, world)
        cross = socialise(cross, world.to_markets(short) > 0, kappa)
    return Outcome(
        funds=funds,
        stocks=book_socialised(now.stocks, socialised, others, at, world),
        hour=replace(now.hour, socialised=now.hour.socialised + socialised),
        kept=replace(kept, shift=kept.shift + side_sign(per_coin) * kept.scale * per_coin),
        taken=now.taken + per_coin,
        cross=cross,
    )


def _took_over(funds: Funds, done: Trades, world: World) -> Funds:
    """Pools and vaults pay for what they take."""

    def pay(funds: Funds) -> Funds:
        sign = side_sign(done.takeover)
        funds = replace(funds, inventory=funds.inventory.add(add_up(sign * done.takeover, 2)))
        funds = funds.receive(-add_up(sign * done.takeover_cash, 2), world)
        if funds.vault is None:
            return funds
        vault = replace(funds.vault, inventory=funds.vault.inventory.add(add_up(sign * done.vault, 2)))
        return replace(funds, vault=vault.receive(-add_up(sign * done.vault_cash, 2), world))

    taken = jnp.any(done.takeover > 0)
    if funds.vault is not None:
        taken = taken | jnp.any(done.vault > 0)
    return when(taken, pay, funds)


def _paid_by_accounts(funds: Funds, left: Left, world: World) -> Funds:
    """Fees and surplus of accounts on cross margin."""
    funds = funds.receive(left.fee, world)
    funds = replace(funds, cash=funds.cash.add(left.cash))
    if funds.coins is None or left.coins is None:
        return funds
    return replace(funds, coins=funds.coins.add(left.coins))


def _sold(hour: Hour, left: Left | None, cross: Cross | None) -> Float[Array, "v a p"] | None:
    """Collateral sold in the hour, at the spot price of its round."""
    if hour.collateral_sold is None or left is None or left.sold is None or cross is None:
        return hour.collateral_sold
    return hour.collateral_sold + spot_flow(left, cross)


def spot_flow(left: Left, cross: Cross) -> Float[Array, "v a p"]:
    """What was sold in the spot market, at the spot price at the round's opening [USD]."""
    assert left.sold is not None and cross.quotes.spot is not None
    return left.sold * jnp.exp(cross.quotes.spot)


def exhausted(equity: Float[Array, "f p"]) -> Bool[Array, "f p"]:
    """Equity at or below zero, to a dollar."""
    return equity <= 1.0


def transfer(funds: Funds, at: Worth, rule: Transfers, world: World) -> Funds:
    """Pools below their floor are topped up to it by another pool, down to that one's own floor.

    All is judged before any money moves; where several ask one pool for more than it can give, in proportion.
    """
    equity, pools = pool_equity(funds, at, world), jnp.arange(len(rule.source))
    floor = rule.floor[:, None]
    need = jnp.where((rule.source >= 0)[:, None], jnp.maximum(floor - equity, 0.0), 0.0)
    asks = (rule.source[:, None] == pools[None]).astype(equity.dtype)
    asked = add_up(asks[..., None] * need[:, None], 0)
    part = share(jnp.maximum(equity - floor, 0.0), asked)
    given = add_up(asks[..., None] * (need[:, None] * part[None]), 1)
    paid = add_up(asks[..., None] * given[:, None], 0)
    return replace(funds, cash=funds.cash.add(given).add(-paid))
