"""Imbalance, depth, index, basis and mark."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.world import MARK_INDEX, MARK_INDEX_AVERAGE, MARK_LAST, Impact, World, along

_NORMAL_STRESS = 11.8
_DEPTH_EXPONENT = 1.75
_DEPTH_FLOOR = 20.0


@pytree
class Quotes:
    """Log prices relative to the start."""

    index: Float[Array, "a p"]
    basis: Float[Array, "v a p"]
    mark: Float[Array, "v a p"]
    spot: Float[Array, "v a p"] | None
    """Of a coin at each venue, where coins are anybody's money."""


def depth_divisor(
    five_minute_return: Float[Array, "*batch a p"], sigma: Float[Array, " a"]
) -> Float[Array, "*batch a p"]:
    """How many times thinner the book is: g = 1 + (|z| / 11.8)^1.75, at most 20.

    Args:
        five_minute_return: EXOGENOUS log-return of the last five minutes [1].
        sigma: Total daily volatility [1]; z is the return over sigma / sqrt(288).
    """
    z = jnp.abs(five_minute_return) / along(-2, sigma / jnp.sqrt(jnp.asarray(288.0, sigma.dtype)), five_minute_return)
    return jnp.minimum(1 + (z / _NORMAL_STRESS) ** _DEPTH_EXPONENT, _DEPTH_FLOOR)


def power(u: Float[Array, "*b"], exponent: Float[Array, ""]) -> Float[Array, "*b"]:
    """|u|^exponent, and 0 at 0."""
    size = jnp.abs(u)
    return jnp.where(size > 0, jnp.exp(exponent * jnp.log(jnp.where(size > 0, size, 1.0))), 0.0)


def signed_power(u: Float[Array, "*b"], exponent: Float[Array, ""]) -> Float[Array, "*b"]:
    """sign(u) |u|^exponent."""
    return jnp.sign(u) * power(u, exponent)


def push(u: Float[Array, "*b a p"], impact: Impact) -> Float[Array, "*b a p"]:
    """Log price displacement of an imbalance: I = coefficient sign(u) |u|^delta."""
    return along(-2, impact.coefficient, u) * signed_power(u, impact.delta)


def mean_power(
    u: Float[Array, "*b"], du: Float[Array, "*b"], start: Float[Array, "*b"], end: Float[Array, "*b"], delta: Array
) -> Float[Array, "*b"]:
    """Mean of sign(u) |u|^delta over [u, u + du]: what a flow that moves the imbalance by du pays on average.

    The closed form loses digits where du is small against u; there its series in du / u is good to 1e-10.

    Args:
        start: `signed_power` at u.
        end: The same at u + du.
    """
    small = jnp.abs(du) < 0.03 * jnp.abs(u)
    x = du / jnp.where(u == 0, 1.0, u)
    series = 1 + delta * x / 2 * (1 + (delta - 1) * x / 3 * (1 + (delta - 2) * x / 4 * (1 + (delta - 3) * x / 5)))
    exact = ((u + du) * end - u * start) / ((delta + 1) * jnp.where(du == 0, 1.0, du))
    return jnp.where(small | (du == 0), start * series, exact)


def index_push(u_global: Float[Array, "a p"], impact: Impact) -> Float[Array, "a p"]:
    """Endogenous part of the log index: own push, and contagion from the others."""
    own = impact.rho * push(u_global, impact)
    others = add_up(impact.contagion[:, :, None] * own[None], 1)
    return impact.index_weight * (own + others)


def quotes(
    exogenous: Float[Array, "a p"],
    u_local: Float[Array, "v a p"],
    u_global: Float[Array, "a p"],
    basis_average: Float[Array, "v a p"],
    world: World,
    deviation: Float[Array, "v a p"] | None = None,
    seen: Float[Array, "v a p"] | None = None,
) -> Quotes:
    """Index, basis, mark and spot prices at given imbalances.

    mark = index + median(0, average, basis) | average | basis | 0, by venue; spot = index + deviation. A venue that has
    lost sight of the index, but not of its own last price, adds to 0 and to the average by how much its index is off.

    Args:
        exogenous: Log index without impact.
        u_local: Imbalance of a market, in days' volumes [1], sells negative.
        u_global: Imbalance of an asset over all venues [1].
        basis_average: Moving average of the basis over the venue's window [log].
        deviation: Of tokens at a venue against their index [log]; zero where absent.
        seen: Log index that a venue sees in place of the present one, NaN where it sees that.
    """
    impact = world.impact
    index = exogenous + index_push(u_global, impact)
    basis = (1 - impact.rho) * push(u_local, impact)
    off = 0.0 if seen is None else jnp.where(jnp.isnan(seen), 0.0, seen - index[None])
    average = off + basis_average
    median = jnp.maximum(jnp.minimum(average, basis), jnp.minimum(jnp.maximum(average, basis), off))
    rule = world.rules.mark[:, None, None]
    offset = jnp.where(rule == MARK_LAST, basis, jnp.where(rule == MARK_INDEX_AVERAGE, average, median))
    offset = jnp.where(rule == MARK_INDEX, off, offset)
    spot = None
    if world.inverse is not None:
        spot = index[None] + (jnp.zeros_like(basis) if deviation is None else deviation)
    return Quotes(index=index, basis=basis, mark=index[None] + offset, spot=spot)


def own_index_push(
    flow: Float[Array, "v a p"], u_global: Float[Array, "a p"], depth: Float[Array, "a p"], world: World
) -> Float[Array, "v a p"]:
    """Mean log displacement of the index along an order of its own in the spot market.

    Args:
        flow: Of each venue by itself [USD, sells negative].
        u_global: Imbalance before it [1].
        depth: Depth divisor.
    """
    impact = world.impact
    du = flow * (depth / world.adv_global[:, None])[None]
    u = jnp.broadcast_to(u_global[None], du.shape)
    start, end = signed_power(u, impact.delta), signed_power(u + du, impact.delta)
    mean = mean_power(u, du, start, end, impact.delta)
    return impact.index_weight * impact.rho * along(1, impact.coefficient, du) * (mean - start)
