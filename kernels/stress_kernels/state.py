"""What is carried through a path.

`State` is what every step looks at on every path; `Record` is what only a round, a payment or a report touches.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.breakers import Halts
from stress_kernels.contracts import Worth, worth
from stress_kernels.funds import Funds
from stress_kernels.ladder import Kept, Ladders
from stress_kernels.ledger import Stocks
from stress_kernels.policy import Burden, no_burden
from stress_kernels.price import Quotes
from stress_kernels.pytree import pytree
from stress_kernels.world import LAYERS, WITH_VAULT, World


@pytree
class Extremes:
    """Lowest and highest since the hour began."""

    fund_low: Float[Array, "f p"]
    index_low: Float[Array, "a p"]
    index_high: Float[Array, "a p"]
    basis_low: Float[Array, "v a p"]
    basis_high: Float[Array, "v a p"]


@pytree
class State:
    """A path between two rounds."""

    u_local: Float[Array, "v a p"]
    u_global: Float[Array, "a p"]
    quotes: Quotes
    reach: Float[Array, "v a s e p"]
    """Place on the ladder up to which accounts have been triggered."""
    queued: Float[Array, "v a s e p"]
    """Coins triggered that wait in the engine's queue."""
    kept: Kept
    funds: Funds
    extremes: Extremes


@pytree
class Hour:
    """Sums since the hour began."""

    layers: Float[Array, "layer v a s p"]
    """Closed, by layer [USD]."""
    first_round: Float[Array, "v a p"]
    accounts: Float[Array, "v p"]
    deficit: Float[Array, "f p"]
    surplus: Float[Array, "f p"]
    socialised: Float[Array, "f p"]
    vault_open: Float[Array, "v p"] | None
    """Vaults' equity when it began, where there are any [USD]."""
    collateral_sold: Float[Array, "v a p"] | None
    """In the spot market, where coins are anybody's money [USD]."""
    stopped: Float[Array, "v a s p"] | None
    """Closed by stop orders, where there are any [USD]."""
    adl_haircut: Float[Array, "v a p"]
    adl_accounts: Float[Array, "v a s e p"]
    """Winners closed on ladders; where everyone in profit is, again and again, they count once."""
    adl_cross_accounts: Float[Array, "v p"]
    """Winners closed on cross margin, each counted once."""
    burden: Burden
    """Who paid for it."""
    voluntary: Float[Array, "v a s p"] | None
    """Closed by holders of their own accord, where any may [USD]."""
    opened: Float[Array, "v a s p"] | None
    """Fresh positions, where there are any [USD]."""


@pytree
class Record:
    """The rest of a path between two rounds."""

    done: Float[Array, "v a s e p"]
    """Place on the ladder up to which accounts have been admitted and closed; from there to `State.reach` they wait."""
    taken: Float[Array, "v a s e p"]
    """Socialised so far [USD per coin held]."""
    budget: Float[Array, "v a p"]
    """What the engine can still take in during this step [USD]."""
    makers_left: Float[Array, "v a p"]
    """What the makers can still take in this hour [USD]."""
    stocks: Stocks
    hour: Hour


@pytree
class Memory:
    """What remembers earlier steps."""

    basis: Float[Array, "window v a p"]
    basis_sum: Float[Array, "v a p"]
    premium_sum: Float[Array, "v a p"]
    block_peaks: Float[Array, "block f p"]
    """Largest fund equity in each of the last blocks of the rolling window [USD]."""
    halts: Halts | None
    """Where any venue has a circuit breaker."""
    seen: Float[Array, "v a p"] | None
    """Log index as a venue saw it last, where one may lose sight of it."""
    step: Int[Array, ""]


def worth_of(quotes: Quotes, world: World) -> Worth:
    """What contracts and coins are worth at these quotes."""
    return worth(quotes.mark, quotes.spot, world.inverse)


def open_extremes(quotes: Quotes, equity: Float[Array, "f p"]) -> Extremes:
    """Extremes of an hour that begins at these quotes."""
    return Extremes(
        fund_low=equity,
        index_low=quotes.index,
        index_high=quotes.index,
        basis_low=quotes.basis,
        basis_high=quotes.basis,
    )


def layers_of(world: World) -> tuple[str, ...]:
    """Names of the layers of a run."""
    return LAYERS if world.vaults is None else WITH_VAULT


def open_hour(world: World, ladders: Ladders, entries: int, paths: int) -> Hour:
    """An hour in which nothing has happened yet."""
    (venues, assets), pools, behaviour = world.adv.shape, world.pool_cash.shape[0], world.behaviour
    dtype = ladders.rows.dtype

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*shape, paths), dtype)

    return Hour(
        layers=zeros(len(layers_of(world)), venues, assets, 2),
        first_round=zeros(venues, assets),
        accounts=zeros(venues),
        deficit=zeros(pools),
        surplus=zeros(pools),
        socialised=zeros(pools),
        vault_open=None if world.vaults is None else zeros(venues),
        collateral_sold=None if world.inverse is None else zeros(venues, assets),
        stopped=None if ladders.stops is None else zeros(venues, assets, 2),
        adl_haircut=zeros(venues, assets),
        adl_accounts=zeros(venues, assets, 2, entries),
        adl_cross_accounts=zeros(venues),
        burden=no_burden(venues, assets, paths, dtype),
        voluntary=None if behaviour is None else zeros(venues, assets, 2),
        opened=None if behaviour is None or behaviour.inflow is None else zeros(venues, assets, 2),
    )
