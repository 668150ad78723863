"""Rules and parameters of one run: everything that is neither a position nor a random number.

Coins are redenominated so that every index starts at 1 USD: a quantity is worth its number in USD at the start, and a
price is 1 + its move. Axes: `v` venue, `a` asset, `f` pool, `side` (0: longs, 1: shorts), `p` path, always last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static

if TYPE_CHECKING:
    from stress_kernels.behaviour import Behaviour
    from stress_kernels.recovery import Recovery

MARK_MEDIAN, MARK_INDEX_AVERAGE, MARK_LAST, MARK_INDEX = 0, 1, 2, 3
ADL_BANKRUPTCY, ADL_MARK, ADL_INDEX = 0, 1, 2
ADL_QUEUE, ADL_PRO_RATA, ADL_WATER_FILLING = 0, 1, 2
LAYERS = ("book", "auction", "takeover", "adl", "remainder")
WITH_VAULT = ("book", "auction", "takeover", "vault", "adl", "remainder")


def along(axis: int, values: Shaped[Array, " n"], like: Array) -> Shaped[Array, "*b"]:
    """Values along one axis of an array, with axes of length 1 for its others."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


def side_sign(like: Float[Array, "v a s *b"]) -> Float[Array, "1 1 s *ones"]:
    """+1 for longs, -1 for shorts, along the side axis of an array."""
    return along(2, jnp.asarray([1.0, -1.0], like.dtype), like)


@pytree
class Impact:
    """Response of prices to forced orders."""

    coefficient: Float[Array, " a"]
    """I = coefficient sign(u) |u|^delta [1]; i_ref (sigma / 0.025) 100^delta."""
    delta: Float[Array, ""]
    rho: Float[Array, ""]
    """Share of the push that reaches the index [1]."""
    contagion: Float[Array, "a a"]
    """Push of asset a per index push of asset b, zero on the diagonal [1]."""
    decay_local: Float[Array, ""]
    """What is left of a local imbalance after a step [1]."""
    decay_global: Float[Array, ""]
    depth: Float[Array, ""]
    """1 where depth withdraws in a fast market, 0 where it does not."""
    index_weight: Float[Array, ""]
    """0 pins the index to its exogenous path, 1 otherwise."""


@pytree
class Rules:
    """What differs between venues."""

    fee: Float[Array, " v"]
    """Liquidation fee on what is closed in book or auction [1]."""
    surplus_to_pool: Bool[Array, " v"]
    mark: Int[Array, " v"]
    """MARK_MEDIAN, MARK_INDEX_AVERAGE, MARK_LAST or MARK_INDEX."""
    mark_window: Int[Array, " v"]
    """Window of the average basis [steps]."""
    adl_ranking: Int[Array, " v"]
    """ADL_QUEUE, ADL_PRO_RATA or ADL_WATER_FILLING."""
    adl_leftover: Bool[Array, " v"]
    """What the layers leave goes to winners though the pool is neither exhausted nor drawn down."""
    adl_close: Int[Array, " v"]
    """ADL_BANKRUPTCY, ADL_MARK or ADL_INDEX."""
    adl_share: Float[Array, " v"]
    """Fall from the rolling peak that starts ADL [1]; above 1: never."""
    adl_blocks: Int[Array, " v"]
    """Rolling window [blocks of `World.block_steps`]."""
    straight_to_adl: Bool[Array, " v"]
    funding_every: Int[Array, " v"]
    """Steps between payments."""
    funding_interest: Float[Array, " v"]
    funding_clamp: Float[Array, " v"]
    funding_cap: Float[Array, " v"]
    funding_divisor: Float[Array, " v"]


@pytree
class Vaults:
    """Backstop vaults: money of their own behind takeover, one a venue."""

    cash: Float[Array, " v"]
    """At the start [USD]."""
    capacity: Float[Array, " v"]
    """Notional that it may hold over all markets, 0 where there is none [USD]."""
    entry: Float[Array, " v"]
    """It takes accounts whose equity is below this multiple of maintenance [1]."""
    least: Float[Array, " v"]
    """Bounds of its profit against the mark, per USD taken; negative for a loss [1]."""
    most: Float[Array, " v"]
    unwind: Float[Array, "v a"]
    """[USD a step]"""


@pytree
class Transfers:
    """Which pool tops up which at the end of a step."""

    source: Int[Array, " f"]
    """Pool that tops this one up, -1 for none."""
    floor: Float[Array, " f"]
    """Equity to which it is topped up, and below which it does not give [USD]."""


@pytree
class Breakers:
    """Circuit breakers, one a venue."""

    move: Float[Array, " v"]
    """Move of an index that trips it [1]; infinite where a venue has none."""
    steps: Int[Array, " v"]
    """Within which [steps]."""
    pause: Int[Array, " v"]
    """For which it stays tripped: the venue then does not liquidate [steps]."""
    listed: Bool[Array, "v a"]
    """Indices that count."""
    window: int = static()
    """Longest of `steps`."""
    widens: Bool[Array, " v"] | None = None
    """Venues that then go on and ask for more margin instead (`Ladders.widened`), where there are any."""


@pytree
class Conditions:
    """What is out of the ordinary in each step; of what never is, nothing."""

    deviation: Float[Array, "#step v a"] | None = None
    """Log price of a token at a venue against its index: what coins are worth there as collateral and are sold at."""
    thinness: Float[Array, "#step a"] | None = None
    """How many times thinner the books are than otherwise."""
    working: Float[Array, "#step v"] | None = None
    """Share of its throughput at which a venue's engine works, and of its rates at which pools and vaults unwind."""
    premium: Float[Array, "#step v a"] | None = None
    """What comes on top of the premium that funding averages [1]."""
    stale: Bool[Array, "#step v"] | None = None
    """Where a venue sees the index as it was before this began."""

    def at(self, step: Int[Array, ""]) -> Conditions:
        """Those of one step."""
        return jax.tree.map(lambda x: x[step][None], self)


@pytree
class World:
    """Rules and parameters of one run."""

    impact: Impact
    rules: Rules
    sigma: Float[Array, " a"]
    """Total daily volatility [1]."""
    barrier_shift: Float[Array, " a"]
    """Distance by which triggers are moved for what a path does between its steps [log]."""
    adv: Float[Array, "v a"]
    """Average daily volume [USD]; 1 where the market is not listed."""
    adv_global: Float[Array, " a"]
    """The same over all venues that list the asset; of its spot market, where none does [USD]."""
    take_bound: Float[Array, "v a"]
    throughput: Float[Array, "v a"]
    """What the engine takes in [USD a step]."""
    auction: Float[Array, "v a"]
    """Makers' capacity [USD a clock hour]."""
    discount: Float[Array, "v a"]
    unwind: Float[Array, "v a"]
    """[USD a step]"""
    block: Float[Array, "v a"]
    """Hedgers who never trade, one-sided [coins]."""
    behind: Float[Array, "f v a"]
    """1 where pool f stands behind market (v, a), 0 elsewhere and where nothing is listed."""
    pool_venue: Int[Array, " f"]
    pool_cash: Float[Array, " f"]
    """[USD]"""
    takeover_multiple: Float[Array, " f"]
    inverse: Bool[Array, "v a"] | None
    """Contracts of so many USD, settled in coins; None where coins are nobody's money."""
    conditions: Conditions
    vaults: Vaults | None
    transfers: Transfers | None
    breakers: Breakers | None
    behaviour: Behaviour | None
    """What is not forced, where anybody does anything of the kind."""
    steps_per_hour: int = static()
    hours: int = static()
    rounds: int = static()
    lanes: int = static()
    """Paths that go through a cascade round together: what fits the cache of a core."""
    window: int = static()
    """Longest mark window [steps]."""
    blocks: int = static()
    """Longest ADL window [blocks]."""
    block_steps: int = static()
    """Steps in a block of the rolling peak."""
    five_minutes: int = static()
    """Steps in five minutes, at least 1."""
    recovery: Recovery | None = None
    """What follows the last hour, where anything does."""

    @property
    def pools_of_venue(self) -> Float[Array, "v f"]:
        """1 where pool f belongs to venue v."""
        venues = jnp.arange(self.adv.shape[0])
        return (venues[:, None] == self.pool_venue[None]).astype(self.adv.dtype)

    def to_pools(self, of_markets: Float[Array, "v a p"]) -> Float[Array, "f p"]:
        """Sum over the markets of each pool."""
        of_markets = jax.lax.optimization_barrier(of_markets)
        return add_up(self.behind[..., None] * of_markets[None], 1, 2)

    def to_markets(self, of_pools: Float[Array, "f p"]) -> Float[Array, "v a p"]:
        """The pool's number at each of its markets; 0 where nothing is listed."""
        return add_up(self.behind[..., None] * of_pools[:, None, None], 0)

    def of_venues(self, of_pools: Float[Array, "f ... p"]) -> Float[Array, "v ... p"]:
        """Sum over the pools of each venue."""
        mine = self.pools_of_venue
        return add_up(mine.reshape(mine.shape + (1,) * (of_pools.ndim - 1)) * of_pools[None], 1)

    def parted(self, amounts: Float[Array, "v a p"]) -> tuple[Float[Array, "v a p"], Float[Array, "v a p"]]:
        """Amounts in the settlement currencies of markets: those in USD, and those in coins."""
        coin = jnp.zeros(amounts.shape[:2], bool) if self.inverse is None else self.inverse
        return jnp.where(coin[..., None], 0.0, amounts), jnp.where(coin[..., None], amounts, 0.0)

    def pool_coins(self, coins: Float[Array, "v a p"]) -> Float[Array, "f a p"]:
        """Coins of each market, by the pool behind it."""
        return add_up(self.behind[..., None] * coins[None], 1)

    def by_currency(self, amounts: Float[Array, "v a p"]) -> Float[Array, "c v p"]:
        """Amounts in the settlement currencies of markets, by currency: USD first, then the coin of each asset."""
        usd, coins = self.parted(amounts)
        return self.in_money(add_up(usd, 1), coins)

    def in_usd(self, amounts: Float[Array, "v p"]) -> Float[Array, "c v p"]:
        """Amounts in USD, among all currencies."""
        return self.in_money(amounts, None)

    def in_money(self, usd: Float[Array, "v p"], coins: Float[Array, "v a p"] | None) -> Float[Array, "c v p"]:
        """Amounts in USD and in coins, by currency."""
        if self.inverse is None:
            return usd[None]
        some = jnp.zeros((*self.inverse.shape, usd.shape[-1]), usd.dtype) if coins is None else coins
        return jnp.concatenate([usd[None], jnp.moveaxis(some, 1, 0)])
