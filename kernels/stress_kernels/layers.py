"""Who takes a forced order: book, auction, takeover, auto-deleveraging, remainder.

Each layer takes what the ones before it left. Scarce capacity is shared in proportion over the slices of a market
side. Amounts are USD at the round's mark, per market and side, axes `v a s p`.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from stress_kernels.money import add_up
from stress_kernels.price import index_push, mean_power, signed_power
from stress_kernels.pytree import pytree
from stress_kernels.world import World, side_sign

Powers = tuple[Float[Array, "v a s p"], Float[Array, "v a s p"]]
"""sign(u) |u|^delta of the local and of the global imbalance."""


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

    base: Float[Array, "1 a 1 p"]
    u_local: Float[Array, "v a #s p"]
    u_global: Float[Array, "#v a #s p"]
    per_usd_local: Float[Array, "v a 1 p"]
    """Imbalance per USD of flow, depth included."""
    per_usd_global: Float[Array, "1 a 1 p"]
    start_local: Float[Array, "v a #s p"]
    """sign(u) |u|^delta at the opening."""
    start_global: Float[Array, "#v a #s p"]
    coefficient: Float[Array, "1 a 1 #p"]

    def after(self, flow: Float[Array, "v a s p"], world: World) -> Powers:
        """Where a signed flow leads [USD, sells negative]."""
        local = self.u_local + flow * self.per_usd_local
        everywhere = self.u_global + flow * self.per_usd_global
        return signed_power(local, world.impact.delta), signed_power(everywhere, world.impact.delta)

    def behind(self, flow: Float[Array, "v a s p"], world: World) -> Curve:
        """The curve that each side finds where a signed flow of its own has led [USD, sells negative]."""
        local, everywhere = self.after(flow, world)
        return replace(
            self,
            u_local=self.u_local + flow * self.per_usd_local,
            u_global=self.u_global + flow * self.per_usd_global,
            start_local=local,
            start_global=everywhere,
        )

    def marginal(self, end: Powers, world: World) -> Float[Array, "v a s p"]:
        """Log price where a flow has led."""
        return self._price(*end, world)

    def mean(self, flow: Float[Array, "v a s p"], end: Powers, world: World) -> Float[Array, "v a s p"]:
        """Mean log price over a signed flow [USD, sells negative]."""

        def over(u: Array, per_usd: Array, start: Array, end: Array) -> Float[Array, "v a s p"]:
            du = flow * per_usd
            u, start = (jnp.broadcast_to(x, du.shape) for x in (u, start))
            return mean_power(u, du, start, end, world.impact.delta)

        local = over(self.u_local, self.per_usd_local, self.start_local, end[0])
        everywhere = over(self.u_global, self.per_usd_global, self.start_global, end[1])
        return self._price(local, everywhere, world)

    def _price(
        self, local: Float[Array, "v a s p"], everywhere: Float[Array, "v a s p"], world: World
    ) -> Float[Array, "v a s p"]:
        impact = world.impact
        pushed = impact.index_weight * impact.rho * everywhere + (1 - impact.rho) * local
        return self.base + self.coefficient * pushed


def curve(
    exogenous: Float[Array, "a p"],
    u_local: Float[Array, "v a p"],
    u_global: Float[Array, "a p"],
    depth: Float[Array, "a p"],
    world: World,
) -> Curve:
    """The impact curve of every market at given imbalances and depth divisor."""
    return curve_at(
        (exogenous + index_push(u_global, world.impact))[None, :, None],
        u_local[:, :, None],
        u_global[None, :, None],
        (depth[None] / world.adv[..., None])[:, :, None],
        (depth / world.adv_global[:, None])[None, :, None],
        world.impact.coefficient[None, :, None, None],
        world,
    )


def curve_at(
    index: Float[Array, "1 a 1 p"],
    u_local: Float[Array, "v a 1 p"],
    u_global: Float[Array, "1 a 1 p"],
    per_usd_local: Float[Array, "v a 1 p"],
    per_usd_global: Float[Array, "1 a 1 p"],
    coefficient: Float[Array, "1 a 1 #p"],
    world: World,
) -> Curve:
    """The curve through a log index; on lanes, where all axes but the last have length 1, as well."""
    impact = world.impact
    start_local, start_global = signed_power(u_local, impact.delta), signed_power(u_global, impact.delta)
    own = impact.index_weight * impact.rho * coefficient * start_global
    return Curve(index - own, u_local, u_global, per_usd_local, per_usd_global, start_local, start_global, coefficient)


def fill_book(wanted: Float[Array, "v a s p"], line: Curve, mark_log: Float[Array, "v a p"], world: World) -> BookFill:
    """Sell (or buy) in the book until the marginal price is the take bound away from the mark.

    Args:
        wanted: What reaches the book, >= 0 [USD].
    """
    sign = side_sign(wanted)
    limit = farthest(mark_log[:, :, None], sign, world.take_bound[:, :, None, None])

    everything = jax.lax.optimization_barrier(line.after(-sign * wanted, world))
    too_much = beyond(everything, limit, sign, line, world) & (wanted > 0)

    def bounded() -> tuple[Float[Array, "v a s p"], Powers]:
        usd = jnp.where(too_much, _up_to(limit, wanted, line, world), wanted)
        return usd, line.after(-sign * usd, world)

    usd, end = jax.lax.cond(jnp.any(too_much), bounded, lambda: (wanted, everything))
    return BookFill(usd=usd, price_log=line.mean(-sign * usd, end, world))


def farthest(
    mark_log: Float[Array, "v a 1 p"], sign: Float[Array, "1 1 #s #p"], bound: Float[Array, "v a 1 #p"]
) -> Float[Array, "v a s p"]:
    """Log price that is the take bound away from the mark."""
    return mark_log + jnp.log1p(-sign * bound)


def beyond(
    end: Powers, limit: Float[Array, "v a s p"], sign: Float[Array, "1 1 #s #p"], line: Curve, world: World
) -> Bool[Array, "v a s p"]:
    """Whether an order leads beyond a log price."""
    return sign * (line.marginal(end, world) - limit) < 0


@jax.custom_jvp
def _up_to(
    limit: Float[Array, "v a s p"], wanted: Float[Array, "v a s p"], line: Curve, world: World
) -> Float[Array, "v a s p"]:
    """How much of an order that leads beyond a log price goes to the book before it [USD].

    Found by halving, whose own derivative would be that of the order; the rule below has that of the equation.
    """
    sign = side_sign(wanted)

    def bisect(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        over = beyond(line.after(-sign * middle, world), limit, sign, line, world)
        return jnp.where(over, low, middle), jnp.where(over, middle, high)

    halvings = jnp.finfo(wanted.dtype).nmant + 1
    return jax.lax.fori_loop(0, halvings, bisect, (jnp.zeros_like(wanted), wanted))[0]


@_up_to.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    limit, wanted, line, world = primals
    usd, sign = _up_to(*primals), side_sign(wanted)

    def short_of(usd: Array, limit: Array, line: Curve) -> Array:
        return line.marginal(line.after(-sign * usd, world), world) - limit

    _, slope = jax.jvp(lambda x: short_of(x, limit, line), (usd,), (jnp.ones_like(usd),))
    _, moved = jax.jvp(lambda *x: short_of(usd, *x), (limit, line), (tangents[0], tangents[2]))
    return usd, -moved / jnp.where(slope == 0, 1.0, slope)


def fill_auction(wanted: Float[Array, "v a s p"], left: Float[Array, "v a p"]) -> Float[Array, "v a s p"]:
    """What the makers take of both sides, up to what is left of their capacity in this hour [USD]."""
    return wanted * share(left, add_up(wanted, 2))[:, :, None]


def fill_takeover(wanted: Float[Array, "v a s p"], room: Float[Array, "f p"], world: World) -> Float[Array, "v a s p"]:
    """What the pools take over, their room shared over all their markets and sides [USD]."""
    asked = world.to_pools(add_up(wanted, 2))
    return wanted * world.to_markets(share(room, asked))[:, :, None]
