"""Paths in groups, within which draws are spread more evenly than independent ones: pairs of mirror images, or nets.

Each path by itself has the shock's law, and groups are independent of each other: means are unbiased, and their error
is seen from how the groups scatter. A group is made of consecutive paths and draws from the key of its first one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, UInt32

from stress_kernels.pytree import pytree
from stress_kernels.shocks import brownian, jumps

_STREAM = 105  # as in `student_t`


@pytree
class Mirrored:
    """Pairs: the second path has minus the normals of the first, and one minus its uniforms."""


@pytree
class Net:
    """Nets of a low-discrepancy sequence, each shifted at random (a digital shift, as in L'Ecuyer and Lemieux 2002).

    In each net, the first jump of each source, and the lowest frequencies of the diffusion: with z the n normals of one
    asset, the part of z along

        v_0(t) = sqrt(1 / n),    v_k(t) = sqrt(2 / n) cos(pi k (t + 1/2) / n)

    is replaced. The v_k are orthonormal, so that z stays a vector of independent standard normals; summed over time v_0
    is where a path ends, and the others are the principal components of the bridge to there, by falling variance.
    """

    points: UInt32[Array, "point dim"]
    """Of the sequence, times 2^32: by jump source wait, size (as many as its law takes) and last, then by frequency and
    asset."""
    waves: Float[Array, "k step"]
    """v_k."""


def paths(
    params: Mirrored | Net, diffusion: brownian.Brownian | None, leaps: jumps.Jumps | None, keys: Array, steps: int
) -> Float[Array, "step a p"]:
    """Log index after each step due to the diffusion and the jumps, one path a key."""
    if isinstance(params, Mirrored):
        normals, numbers = mirrored(diffusion, leaps, keys, steps)
    else:
        normals, numbers = netted(params, diffusion, leaps, keys, steps)
    log = [] if diffusion is None else [brownian.moved(diffusion, normals)]
    if leaps is not None:
        log.append(jumps.moved(leaps, numbers, steps))
    return sum(log[1:], log[0])


def mirrored(
    diffusion: brownian.Brownian | None, leaps: jumps.Jumps | None, keys: Array, steps: int
) -> tuple[Any, Any]:
    """Normals of the diffusion and numbers of the jumps; paths last, images beside what they mirror."""

    def paired(x: Array, image: Array) -> Array:
        return jnp.stack([x, image], axis=-1).reshape(*x.shape[:-1], -1)

    normals = numbers = None
    if diffusion is not None:
        half = brownian.numbers(diffusion, keys[::2], steps)
        normals = paired(half, -half)
    if leaps is not None:
        some = jumps.many(leaps, keys[::2])
        numbers = jax.tree.map(paired, some, jumps.mirrored(leaps, some))
    return normals, numbers


def netted(
    params: Net, diffusion: brownian.Brownian | None, leaps: jumps.Jumps | None, keys: Array, steps: int
) -> tuple[Any, Any]:
    """As `mirrored`: all from the paths' own keys, but for what comes from the net."""
    uniforms = uniform_points(params, keys)
    normals = numbers = None
    if leaps is not None:
        numbers = jumps.many(leaps, keys)
        kinds, sources = numbers.sizes.shape[:2]
        first = uniforms[: sources * (kinds + 2)].reshape(sources, kinds + 2, -1)
        uniforms = uniforms[sources * (kinds + 2) :]
        numbers = jumps.Numbers(
            waits=numbers.waits.at[:, 0].set(first[:, 0]),
            sizes=numbers.sizes.at[:, :, 0].set(leaps.sizes.from_uniforms(jnp.moveaxis(first[:, 1:-1], 1, 0))),
            lasts=numbers.lasts.at[:, 0].set(first[:, -1]),
        )
    if diffusion is not None:
        normals = brownian.numbers(diffusion, keys, steps)
        normals = _replaced(normals, params.waves, ndtri(uniforms).reshape(-1, *normals.shape[1:]))
    return normals, numbers


def _replaced(
    normals: Float[Array, "step a p"], waves: Float[Array, "k step"], along: Float[Array, "k a p"]
) -> Float[Array, "step a p"]:
    """Normals whose parts along some orthonormal waves are others. Sums go step by step, whatever the compiler."""

    def project(sums: Float[Array, "k a p"], at: tuple[Array, Array]) -> tuple[Array, None]:
        wave, z = at
        return sums + wave[:, None, None] * z[None], None

    was, _ = jax.lax.scan(project, jnp.zeros_like(along), (waves.T, normals))
    change = along - was

    def put(_: None, at: tuple[Array, Array]) -> tuple[None, Array]:
        wave, z = at
        return None, z + sum(wave[k] * change[k] for k in range(len(change)))

    return jax.lax.scan(put, None, (waves.T, normals))[1]


def uniform_points(params: Net, keys: Array) -> Float[Array, "dim p"]:
    """Points of the nets, each net with a shift of its own, in the middles of 2^23 intervals between 0 and 1."""
    size, dims = params.points.shape
    firsts = keys[::size]
    shift = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, _STREAM), (dims,), jnp.uint32))(firsts)
    points = (params.points[None] ^ shift[:, None]).reshape(-1, dims).T
    dtype = params.waves.dtype
    return ((points >> 9).astype(dtype) + 0.5) / 2**23
