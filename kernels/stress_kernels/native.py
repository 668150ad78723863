"""A run's paths by a kernel for one core of a CPU, written in C++ (`native.cpp`), equal to `simulate` to rounding.

It knows what the kernel on the chip of a GPU knows (`chip.py`), and auctions and pools behind the book; it reads the
same tables and makes the same report, with what went there. Paths that it gives up are for `simulate`: those with an
order that makers and pools do not take whole either, a queue, or a pool that is exhausted or far drawn down.
`stress.native` builds the library and tells JAX of it.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from stress_kernels.day_report import outputs_of, report_of
from stress_kernels.day_tables import sizes_of, tables_of
from stress_kernels.ladder import Ladders
from stress_kernels.ledger import open_stocks
from stress_kernels.simulate import Outputs
from stress_kernels.world import World

TARGET = "liqstress_day"
"""The kernel's name in its library, and for JAX."""
_VECTOR = 16
"""Paths of a vector."""


def on_core(exogenous: Float[Array, "step a p"], ladders: Ladders, world: World) -> tuple[Outputs, Bool[Array, " p"]]:
    """What the kernel says of all paths, and which of them it has given up.

    Args:
        exogenous: Log index without impact after each step, relative to the start.
        ladders: With triggers at the centres of their cells, one of each side.
        world: Without anything that `stress.fast.missing` names.
    """
    _, assets, paths = exogenous.shape
    sizes = replace(sizes_of(ladders, world, 1, interpret=False), width=assets)
    tables = tables_of(ladders, world, open_stocks(ladders, None, world, 1), sizes)
    padded = jnp.pad(exogenous, ((0, 0), (0, 0), (0, -paths % _VECTOR)))
    report, structure = jax.tree.flatten(report_of(sizes, padded.shape[-1], exogenous.dtype, behind=True))
    numbers = (sizes.venues, sizes.assets, sizes.pools, sizes.rungs, sizes.cells, sizes.window, sizes.lag)
    times = (sizes.rounds, sizes.hours, sizes.steps_per_hour, padded.shape[-1])
    call = jax.ffi.ffi_call(TARGET, report)
    said = call(padded, *jax.tree.leaves(tables), sizes=np.array(numbers + times, np.int64))
    found = jax.tree.map(lambda x: x[..., :paths], jax.tree.unflatten(structure, said))
    return outputs_of(found, ladders, world), found.unknown[0] > 0
