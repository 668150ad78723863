"""Insurance funds and backstop vaults: what they hold, and what it is worth."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.contracts import Worth
from stress_kernels.money import Sum, add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import World


@pytree
class Vault:
    """The backstop vaults: what they hold."""

    cash: Sum
    """(v p) [USD]"""
    coins: Sum | None
    """(v a p), where coins are anybody's money."""
    inventory: Sum
    """What they took over and have not sold, (v a p) [contracts]."""

    def receive(self, amounts: Float[Array, "v a p"], world: World) -> Vault:
        """Add to what vaults own, in the settlement currencies of the markets."""
        usd, coins = world.parted(amounts)
        return replace(
            self, cash=self.cash.add(add_up(usd, 1)), coins=None if self.coins is None else self.coins.add(coins)
        )

    def equity(self, at: Worth) -> Float[Array, "v p"]:
        """Cash, coins and inventory at the marks [USD]."""
        equity = self.cash.value + add_up(self.inventory.value * at.settle * at.money, 1)
        if self.coins is None or at.coin is None:
            return equity
        return equity + add_up(self.coins.value * at.coin, 1)


@pytree
class Funds:
    """The pools: what they hold and how they have fared."""

    cash: Sum
    """(f p) [USD]"""
    coins: Sum | None
    """(f a p), where coins are anybody's money."""
    inventory: Sum
    """What they took over and have not sold, (v a p) [contracts]."""
    vault: Vault | None
    """Of the venues, where any has one."""
    equity: Float[Array, "f p"]
    """As last valued: when a step opens, and after each round, unwinding and transfer [USD]."""
    peak: Float[Array, "f p"]
    """Largest equity so far [USD]."""
    drawdown: Float[Array, "f p"]
    """Largest fall from it [USD]."""
    adl_on: Bool[Array, "f p"]
    exhausted_hour: Float[Array, "f p"]
    """First hour with equity at or below zero; NaN before."""

    def receive(self, amounts: Float[Array, "v a p"], world: World) -> Funds:
        """Add to what pools own, in the settlement currencies of their markets."""
        usd, coins = world.parted(amounts)
        return replace(
            self,
            cash=self.cash.add(world.to_pools(usd)),
            coins=None if self.coins is None else self.coins.add(world.pool_coins(coins)),
        )


def pool_equity(funds: Funds, at: Worth, world: World) -> Float[Array, "f p"]:
    """Cash, coins, and inventory at the mark [USD]."""
    equity = funds.cash.value + world.to_pools(funds.inventory.value * at.settle * at.money)
    if funds.coins is None or at.coin is None:
        return equity
    return equity + add_up(funds.coins.value * at.coin[world.pool_venue], 1)


def open_funds(world: World, paths: int, dtype: jnp.dtype) -> Funds:
    """Pools and vaults before the first step."""
    venues, assets = world.adv.shape
    pools = world.pool_cash.shape[0]

    def each(x: Array) -> Array:
        return jnp.broadcast_to(x[..., None], (*x.shape, paths))

    def zeros(*shape: int) -> Sum:
        return Sum.of(jnp.zeros((*shape, paths), dtype))

    def coins(*shape: int) -> Sum | None:
        return None if world.inverse is None else zeros(*shape, assets)

    cash = each(world.pool_cash)
    vault = None
    if world.vaults is not None:
        vault = Vault(Sum.of(each(world.vaults.cash)), coins(venues), zeros(venues, assets))
    return Funds(
        cash=Sum.of(cash),
        coins=coins(pools),
        inventory=zeros(venues, assets),
        vault=vault,
        equity=cash,
        peak=cash,
        drawdown=jnp.zeros_like(cash),
        adl_on=jnp.zeros((pools, paths), bool),
        exhausted_hour=jnp.full((pools, paths), jnp.nan, dtype),
    )
