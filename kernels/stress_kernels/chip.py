"""A run's paths by a kernel that keeps their state on the chip over all hours, equal to `simulate` to rounding.

One program of the kernel has a block of paths, a thread for each asset of a path, and goes through all steps; only
reports leave it. It knows the order book, funding and pools that pay. A path that meets more, an order that the book
does not take whole, a queue, a pool that is exhausted or so far drawn down that deleveraging may begin, is given up:
`simulate` can do it again from the start, as paths are keyed.

The kernel is written in Pallas for its Triton backend: what looks up numbers of a table by threads of their own is not
to be had in that of Mosaic.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from stress_kernels.chip_boards import boards_of
from stress_kernels.chip_day import day
from stress_kernels.day_report import Report, outputs_of, report_of
from stress_kernels.day_tables import Sizes, Tables, sizes_of, tables_of
from stress_kernels.ladder import Ladders
from stress_kernels.ledger import open_stocks
from stress_kernels.simulate import Outputs
from stress_kernels.world import World

LANES = 32
"""Paths of a block, and threads of a warp. More paths would wait for the one with the most rounds. Not measured."""


def on_chip(
    exogenous: Float[Array, "step a p"], ladders: Ladders, world: World, *, lanes: int = LANES, interpret: bool = False
) -> tuple[Outputs, Bool[Array, " p"]]:
    """What the kernel says of all paths, and which of them it has given up.

    Args:
        exogenous: Log index without impact after each step, relative to the start.
        ladders: With triggers at the centres of their cells, one of each side.
        world: Without anything that `stress.fast.missing` names.
        lanes: Paths of a block, a power of two.
        interpret: Run the kernel as ordinary array programs, block after block: slow, for tests.
    """
    _, assets, paths = exogenous.shape
    sizes = sizes_of(ladders, world, lanes, interpret=interpret)
    tables = tables_of(ladders, world, open_stocks(ladders, None, world, 1), sizes)
    padded = jnp.pad(exogenous, ((0, 0), (0, sizes.width - assets), (0, -paths % lanes)))
    report = jax.tree.map(lambda x: x[..., :paths], _call(padded, tables, sizes))
    return outputs_of(report, ladders, world), report.unknown[0] > 0


def _call(exogenous: Float[Array, "step a p"], tables: Tables, sizes: Sizes) -> Report:
    paths, dtype = exogenous.shape[-1], exogenous.dtype
    shapes = report_of(sizes, paths, dtype), boards_of(sizes, paths, dtype)
    report, structure = jax.tree.flatten(shapes)

    def kernel(log: Any, tables: Tables, *rest: Any) -> None:
        report, boards = jax.tree.unflatten(structure, rest)
        day(log, tables, boards, report, sizes)

    def of_block(x: Any) -> pl.BlockSpec:
        """The part of a block's paths, which come last; of a list, its own."""
        *before, last = x.shape
        return pl.BlockSpec((*before, last // (paths // sizes.lanes)), functools.partial(_mine, len(before)))

    whole = jax.tree.map(lambda x: pl.BlockSpec(x.shape, functools.partial(_all, x.ndim)), tables)
    found = pl.pallas_call(
        kernel,
        grid=(paths // sizes.lanes,),
        in_specs=(of_block(exogenous), whole),
        out_specs=list(map(of_block, report)),
        out_shape=report,
        compiler_params=triton.CompilerParams(num_warps=max(1, sizes.threads // 32), num_stages=1),
        interpret=sizes.interpret,
        name="day",
    )(exogenous, tables)
    return jax.tree.unflatten(structure, found)[0]


def _all(axes: int, block: Array) -> tuple[Any, ...]:
    return (0,) * axes


def _mine(before: int, block: Array) -> tuple[Any, ...]:
    return (*(0,) * before, block)
