"""Who takes a forced order: book, auction, takeover, auto-deleveraging, remainder.

Each layer takes what the ones before it left. Scarce capacity is shared in proportion over the slices of a market
side. Amounts are USD at the round's mark, per market and side, axes `v a s p`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.money import add_up
from stress_kernels.price import index_push, mean_push, power, push
from stress_kernels.pytree import pytree
from stress_kernels.world import World, along, side_sign


def share(capacity: Float[Array, "*b"], demand: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Part of a demand that a capacity serves, in [0, 1]; 1 where there is no demand."""
    return jnp.where(demand > capacity, jnp.maximum(capacity, 0.0) / jnp.where(demand > 0, demand, 1.0), 1.0)


@pytree
class BookFill:
    """What the order book took."""

    usd: Float[Array, "v a s p"]
    price_log: Float[Array, "v a s p"]
    """Mean log price along the impact curve."""


@pytree
class Curve:
    """Log of the last price as a function of one's own flow, from the imbalances at the round's opening."""

    base: Float[Array, "1 a p"]
    u_local: Float[Array, "v a p"]
    u_global: Float[Array, "1 a p"]
    per_usd_local: Float[Array, "v a p"]
    """Imbalance per USD of flow, depth included."""
    per_usd_global: Float[Array, "1 a p"]

    def marginal(self, flow: Float[Array, "v a s p"], world: World) -> Float[Array, "v a s p"]:
        """Log price after a signed flow [USD, sells negative]."""
        impact = world.impact
        after_local = self.u_local[:, :, None] + flow * self.per_usd_local[:, :, None]
        after_global = self.u_global[:, :, None] + flow * self.per_usd_global[:, :, None]
        coefficient = along(1, impact.coefficient, flow)
        local, everywhere = (coefficient * jnp.sign(u) * power(u, impact.delta) for u in (after_local, after_global))
        return self.base[:, :, None] + impact.index_weight * impact.rho * everywhere + (1 - impact.rho) * local

    def mean(self, flow: Float[Array, "v a s p"], world: World) -> Float[Array, "v a s p"]:
        """Mean log price over a signed flow."""
        impact = world.impact
        local = mean_push(
            jnp.broadcast_to(self.u_local[:, :, None], flow.shape), flow * self.per_usd_local[:, :, None], impact
        )
        everywhere = mean_push(
            jnp.broadcast_to(self.u_global[:, :, None], flow.shape), flow * self.per_usd_global[:, :, None], impact
        )
        return self.base[:, :, None] + impact.index_weight * impact.rho * everywhere + (1 - impact.rho) * local


def curve(
    exogenous: Float[Array, "a p"],
    u_local: Float[Array, "v a p"],
    u_global: Float[Array, "a p"],
    depth: Float[Array, "a p"],
    world: World,
) -> Curve:
    """The impact curve of every market at given imbalances and depth divisor."""
    own = world.impact.index_weight * world.impact.rho * push(u_global, world.impact)
    return Curve(
        base=(exogenous + index_push(u_global, world.impact) - own)[None],
        u_local=u_local,
        u_global=u_global[None],
        per_usd_local=depth[None] / world.adv[..., None],
        per_usd_global=(depth / world.adv_global[:, None])[None],
    )


def fill_book(wanted: Float[Array, "v a s p"], line: Curve, mark_log: Float[Array, "v a p"], world: World) -> BookFill:
    """Sell (or buy) in the book until the marginal price is the take bound away from the mark.

    Args:
        wanted: What reaches the book, >= 0 [USD].
    """
    sign = side_sign(wanted)
    limit = mark_log[:, :, None] + jnp.log1p(-sign * world.take_bound[:, :, None, None])

    def beyond(usd: Float[Array, "v a s p"]) -> Bool[Array, "v a s p"]:
        return sign * (line.marginal(-sign * usd, world) - limit) < 0

    too_much = beyond(wanted) & (wanted > 0)

    def bisect(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        over = beyond(middle)
        return jnp.where(over, low, middle), jnp.where(over, middle, high)

    def bounded() -> Float[Array, "v a s p"]:
        halvings = jnp.finfo(wanted.dtype).nmant + 1
        low, _ = jax.lax.fori_loop(0, halvings, bisect, (jnp.zeros_like(wanted), wanted))
        return jnp.where(too_much, low, wanted)

    usd = jax.lax.cond(jnp.any(too_much), bounded, lambda: wanted)
    return BookFill(usd=usd, price_log=line.mean(-sign * usd, world))


def fill_auction(wanted: Float[Array, "v a s p"], left: Float[Array, "v a p"]) -> Float[Array, "v a s p"]:
    """What the makers take of both sides, up to what is left of their capacity in this hour [USD]."""
    return wanted * share(left, add_up(wanted, 2))[:, :, None]


def fill_takeover(wanted: Float[Array, "v a s p"], room: Float[Array, "f p"], world: World) -> Float[Array, "v a s p"]:
    """What the pools take over, their room shared over all their markets and sides [USD]."""
    asked = world.to_pools(add_up(wanted, 2))
    return wanted * world.to_markets(share(room, asked))[:, :, None]
