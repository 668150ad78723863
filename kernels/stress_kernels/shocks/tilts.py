"""Importance sampling: paths from a mixture of laws, the shock's own among them, and what each of them weighs.

A path is drawn from law k with chance share_k. Whichever it was, its likelihood ratio is that of the shock p against
the whole mixture (the balance heuristic of Veach and Guibas 1995, a defensive mixture as in Hesterberg 1995):

    w = p / sum_k share_k q_k = 1 / sum_k exp(log share_k + log q_k / p)

It is at most 1 / share_0, the share of the shock itself, whatever the other laws are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.money import add_up
from stress_kernels.pytree import pytree
from stress_kernels.shocks import brownian, jumps

_STREAM = 104  # as in `student_t`


@pytree
class Tilts:
    """Laws of a mixture; the first is the shock itself, without drift."""

    log_share: Float[Array, " k"]
    """Log of the chance that a path is drawn from a law."""
    drift: Float[Array, "k a"]
    """Of the diffusion [log/step]."""
    pull: Float[Array, "k a"]
    """Covariance of a step^-1 drift."""
    half: Float[Array, " k"]
    """Half of drift' covariance^-1 drift [1/step]."""
    jumps: jumps.Jumps | None
    """All laws, in front of the other axes."""


def laws(params: Tilts, keys: Array) -> Int[Array, " p"]:
    """Which law each path is drawn from."""
    upto = jnp.cumsum(jnp.exp(params.log_share))[:-1]
    dtype = params.log_share.dtype
    chance = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _STREAM), (), dtype))(keys)
    return jnp.sum(chance[None] >= upto[:, None], axis=0)


def draw(params: Tilts, keys: Array) -> jumps.Drawn:
    """The jumps of each path, by the law that it is drawn from."""

    def one(key: Array, law: Array) -> jumps.Drawn:
        of_law = jax.tree.map(lambda x: x[law], params.jumps)
        return jumps.draw(of_law, jumps.numbers(of_law, key))

    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), jax.vmap(one)(keys, laws(params, keys)))


def paths(
    params: Tilts, diffusion: brownian.Brownian | None, keys: Array, steps: int
) -> tuple[Float[Array, "step a p"], Float[Array, " p"]]:
    """Log index after each step due to the diffusion and the jumps, and the log likelihood ratio, one path a key.

    Of a drift d over n steps of covariance C the ratio is exp(d' C^-1 x - n d' C^-1 d / 2), x where the diffusion ends.
    """
    log, ratio = jnp.zeros((), params.half.dtype), params.log_share[:, None]
    if diffusion is not None:
        drift = params.drift[laws(params, keys)].T
        passed = jnp.arange(1, steps + 1, dtype=drift.dtype)
        log = brownian.paths(diffusion, keys, steps) + passed[:, None, None] * drift[None]
        ratio = ratio + add_up(params.pull[:, :, None] * log[-1][None], 1) - steps * params.half[:, None]
    if params.jumps is not None:
        drawn = draw(params, keys)
        moved = jumps.spread(jax.tree.map(lambda x: x[0], params.jumps), drawn, steps)
        density = jax.vmap(jumps.log_density, (0, None, None))(params.jumps, drawn, steps)
        log, ratio = log + moved, ratio + (density - density[:1])
    return log, -jax.scipy.special.logsumexp(ratio, axis=0)
