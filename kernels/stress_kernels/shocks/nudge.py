"""Paths near others: the same random numbers, moved a little, so that the law of all paths stays what it is.

A path is made of independent random numbers. Each is moved by a kernel that is reversible for its own law, and so all
together are for the law of paths:

    normal     z' = sqrt(1 - b^2) z + b y, y another standard normal (Neal 1999; Cotter, Roberts, Stuart, White 2013)
    uniform    the same of its normal quantile
    other      drawn anew with chance b

b = 1 draws all anew.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Shaped

from stress_kernels.shocks import jumps
from stress_kernels.shocks.sizes import ExponentialSizes

Parts = Sequence[tuple[ModuleType, Any]]
"""Processes whose sum is the path: the module of each, with `numbers` and `moved`, and its tables."""
_STREAM = 106  # and those after it; as in `student_t`


def numbers(parts: Parts, keys: Array, steps: int) -> tuple[Any, ...]:
    """What paths are made of, one path a key, paths last."""
    return tuple(
        jumps.many(params, keys) if module is jumps else module.numbers(params, keys, steps) for module, params in parts
    )


def moved(parts: Parts, given: tuple[Any, ...], steps: int) -> Float[Array, "step a p"]:
    """Log index after each step that these numbers make."""
    each = [
        jumps.moved(params, some, steps) if module is jumps else module.moved(params, some)
        for (module, params), some in zip(parts, given, strict=True)
    ]
    return functools.reduce(jnp.add, each)


def nudged(
    parts: Parts, old: tuple[Any, ...], keys: Array, far: Float[Array, "array p"], steps: int
) -> tuple[Any, ...]:
    """Numbers near `old`.

    Args:
        parts: The processes.
        old: What some paths are made of.
        keys: Of these paths, for other numbers.
        far: b for each array of numbers, in the order of `jax.tree.leaves`.
        steps: Of a path.
    """
    fresh = jax.tree.leaves(numbers(parts, keys, steps))
    leaves, structure = jax.tree.flatten(old)
    uniform = jax.tree.leaves(_uniform(parts, old))
    made = [
        _nudged(was, other, far[i], is_uniform, keys, i)
        for i, (was, other, is_uniform) in enumerate(zip(leaves, fresh, uniform, strict=True))
    ]
    return jax.tree.unflatten(structure, made)


def _uniform(parts: Parts, given: tuple[Any, ...]) -> Any:
    """Of each array whether it holds uniform numbers; what is no whole number otherwise is normal."""
    found = []
    for (_, params), some in zip(parts, given, strict=True):
        leaps = isinstance(some, jumps.Numbers)
        kinds = jax.tree.unflatten(jax.tree.structure(some), [leaps] * len(jax.tree.leaves(some)))
        found.append(replace(kinds, sizes=isinstance(params.sizes, ExponentialSizes)) if leaps else kinds)
    return found


def _nudged(
    was: Shaped[Array, "*b p"],
    other: Shaped[Array, "*b p"],
    far: Float[Array, " p"],
    uniform: bool,
    keys: Array,
    i: int,
) -> Shaped[Array, "*b p"]:
    far = far.reshape(*(1,) * (was.ndim - 1), -1)
    if not jnp.issubdtype(was.dtype, jnp.floating):
        one = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _STREAM + i), was.shape[:-1], far.dtype))
        return jnp.where(jnp.moveaxis(one(keys), 0, -1) < far, other, was)
    stays = jnp.sqrt(1 - far**2)
    if not uniform:
        return stays * was + far * other
    least = jnp.finfo(was.dtype).epsneg
    z, y = (ndtri(jnp.clip(x, least, 1 - least)) for x in (was, other))
    return jnp.clip(ndtr(stays * z + far * y), least, 1 - least)
