"""The ledger: money and contracts of every party. A posting stands in the books of both of its sides."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.account_settlement import Left
from stress_kernels.accounts import Accounts, coins_posted, positions
from stress_kernels.contracts import Worth
from stress_kernels.funds import Funds
from stress_kernels.ladder import CLASSES, Ladders, quantity, total_row
from stress_kernels.money import Sum, add_up
from stress_kernels.pytree import pytree
from stress_kernels.trades import Trades
from stress_kernels.world import World, side_sign


@pytree
class Stocks:
    """Money and contracts of every party but pools and vaults since the start, each booked by itself; none is derived
    from the others. Money is by currency `c`: USD, then the coin of each asset where coins are anybody's money."""

    traders_cash: Sum
    """(c v p)"""
    makers_cash: Sum
    rest_cash: Sum
    spot_cash: Sum | None
    """Of who buys collateral in the spot market."""
    traders: Sum
    """Contracts by side, (v a s p): longs, and shorts as negative numbers."""
    makers: Sum
    """(v a p)"""
    rest: Sum
    """(v a p)"""
    gross_cash: Float[Array, "c p"]
    """Opening stocks and absolute flows."""
    gross_coins: Float[Array, " p"]


def ledger_residual(stocks: Stocks, funds: Funds, world: World) -> Float[Array, " p"]:
    """Largest of what money and contracts fail to add up to over all parties, relative to gross flows and stocks."""
    vault = funds.vault
    money = [stocks.traders_cash, stocks.makers_cash, stocks.rest_cash]
    money += [] if stocks.spot_cash is None else [stocks.spot_cash]
    usd = [funds.cash] if vault is None else [funds.cash, vault.cash]
    coins = [x for x in (funds.coins, vault and vault.coins) if x is not None]
    opening = jnp.sum(world.pool_cash) + (0.0 if world.vaults is None else jnp.sum(world.vaults.cash))

    def balance(part: str) -> Float[Array, "c p"]:
        total = functools.reduce(jnp.add, [add_up(getattr(x, part), 1) for x in money])
        for x in usd:
            total = total.at[0].add(add_up(getattr(x, part), 0))
        for x in coins:
            total = total.at[1:].add(add_up(getattr(x, part), 0))
        return total

    high = balance("high")
    of_money = (high.at[0].add(-opening) + balance("low")) / stocks.gross_cash
    contracts = add_up(stocks.traders.value, 2) + stocks.makers.value + funds.inventory.value + stocks.rest.value
    contracts = contracts if vault is None else contracts + vault.inventory.value
    return jnp.maximum(jnp.max(jnp.abs(of_money), axis=0), add_up(jnp.abs(contracts), 0, 1) / stocks.gross_coins)


def open_stocks(ladders: Ladders, accounts: Accounts | None, world: World, paths: int) -> Stocks:
    """Stocks before the first step; the rest of the market holds minus the sum of all positions."""
    total = total_row(ladders)[..., 0]
    held = add_up(quantity(total[..., None])[..., 0], -1)
    sign = side_sign(held)
    coins = sign * held
    cash = -sign * (held + add_up(total[..., 1 : 2 * CLASSES : 2], -1, -2))
    opening = jnp.sum(jnp.abs(cash)) + jnp.sum(world.pool_cash)
    opening = opening if world.vaults is None else opening + jnp.sum(world.vaults.cash)
    gross = opening[None]
    if accounts is not None:
        coins = coins + positions(accounts)
    if world.inverse is not None:
        posted = jnp.zeros(world.inverse.shape[1]) if accounts is None else coins_posted(accounts)
        gross = jnp.concatenate([gross, jnp.maximum(posted.astype(total.dtype), 1e-6)])

    def zeros(*shape: int) -> Sum:
        return Sum.of(jnp.zeros((*shape, paths), total.dtype))

    def each(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], (*x.shape, paths))

    venues, assets = world.adv.shape
    return Stocks(
        traders_cash=zeros(len(gross), venues),
        makers_cash=zeros(len(gross), venues),
        rest_cash=zeros(len(gross), venues),
        spot_cash=None if world.inverse is None else zeros(len(gross), venues),
        traders=Sum.of(each(coins)),
        makers=zeros(venues, assets),
        rest=Sum.of(each(-add_up(coins, -1))),
        gross_cash=each(gross),
        gross_coins=each(2 * jnp.sum(jnp.abs(coins))),
    )


def book_trades(
    stocks: Stocks, done: Trades, closed: Float[Array, "v a s p"], proceeds: Float[Array, "v a s p"], world: World
) -> Stocks:
    """Post every trade to traders, makers and the rest of the market; pools and vaults post theirs by themselves.

    Args:
        stocks: Before.
        done: By who bought it.
        closed: Contracts of traders that are closed, by deleveraging not.
        proceeds: What these earn, in the settlement currency.
        world: Rules and parameters.
    """
    sign = side_sign(proceeds)

    def market(x: Float[Array, "v a s p"]) -> Float[Array, "v a p"]:
        return add_up(sign * x, 2)

    def money(x: Float[Array, "v a s p"]) -> Float[Array, "c v p"]:
        return world.by_currency(market(x))

    flows = (done.book_cash, done.auction_cash, done.takeover_cash, done.vault_cash, done.adl_cash, done.remainder_cash)
    gross = world.by_currency(add_up(functools.reduce(jnp.add, map(jnp.abs, flows)), 2))
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(money(proceeds)).add(-money(done.adl_cash)),
        makers_cash=stocks.makers_cash.add(-money(done.auction_cash)),
        rest_cash=stocks.rest_cash.add(-money(done.book_cash)).add(-money(done.remainder_cash)),
        traders=stocks.traders.add(-sign * closed).add((sign * done.adl)[:, :, ::-1]),
        makers=stocks.makers.add(market(done.auction)),
        rest=stocks.rest.add(market(done.book)).add(market(done.remainder)),
        gross_cash=stocks.gross_cash + add_up(gross, 1),
        gross_coins=stocks.gross_coins + add_up(closed, 0, 1, 2),
    )


def book_stops(stocks: Stocks, coins: Float[Array, "v a s p"], cash: Float[Array, "v a s p"], world: World) -> Stocks:
    """Post stop orders: holders sell (shorts: buy) `coins` for `cash` USD, the rest of the market buys (sells)."""
    sign = side_sign(coins)
    paid, signed = world.by_currency(add_up(sign * cash, 2)), sign * coins
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(paid),
        rest_cash=stocks.rest_cash.add(-paid),
        traders=stocks.traders.add(-signed),
        rest=stocks.rest.add(add_up(signed, 2)),
        gross_cash=stocks.gross_cash + add_up(world.by_currency(add_up(cash, 2)), 1),
        gross_coins=stocks.gross_coins + add_up(coins, 0, 1, 2),
    )


def book_ladders(stocks: Stocks, received: Float[Array, "v p"], lacking: Float[Array, "v p"], world: World) -> Stocks:
    """What accounts on ladders paid to pools and lacked, by venue [USD]."""
    gross = add_up(received + lacking, 0)
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(-world.in_usd(received)).add(world.in_usd(lacking)),
        gross_cash=stocks.gross_cash.at[0].add(gross),
    )


def book_accounts(stocks: Stocks, left: Left, world: World) -> Stocks:
    """What accounts on cross margin paid to pools, lacked, and sold in the spot market."""
    cash, deficit = world.of_venues(left.cash), world.of_venues(left.deficit)
    coins = None if left.coins is None else world.of_venues(left.coins)
    given = world.by_currency(left.fee) + world.in_money(cash, coins)
    stocks = replace(
        stocks,
        traders_cash=stocks.traders_cash.add(-given).add(world.in_usd(deficit)),
        gross_cash=(stocks.gross_cash + add_up(jnp.abs(given), 1)).at[0].add(add_up(deficit, 0)),
    )
    if stocks.spot_cash is None or left.brought is None:
        return stocks
    sale = world.in_money(add_up(left.brought, 1), None if left.sold is None else -left.sold)
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(sale),
        spot_cash=stocks.spot_cash.add(-sale),
        gross_cash=stocks.gross_cash + add_up(jnp.abs(sale), 1),
    )


def book_socialised(
    stocks: Stocks, total: Float[Array, "f p"], others: Float[Array, "v a p"], at: Worth, world: World
) -> Stocks:
    """Losses taken from winners: from ladders in USD, from accounts on cross margin in the settlement currency.

    Args:
        stocks: Of money and contracts.
        total: By pool [USD].
        others: The part of it from accounts on cross margin [USD].
        at: What contracts and coins are worth.
        world: Rules and parameters.
    """
    from_ladders = world.of_venues(total - world.to_pools(others))
    taken = world.in_usd(from_ladders) + world.by_currency(others / at.money)
    return replace(
        stocks,
        traders_cash=stocks.traders_cash.add(-taken),
        gross_cash=stocks.gross_cash + add_up(jnp.abs(taken), 1),
    )
