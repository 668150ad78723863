"""The least time that a step of a path can take on this machine.

The floor of a path-step is the larger of two times: that of reading and writing once what a step without an event
touches of a path, at the rate at which this machine copies a table of that size, and that of the arithmetic of random
numbers and dense update, at the rate at which it multiplies and adds. No event is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from stress.bench_turns import in_turns
from stress.build import build, on_device
from stress.config import Run
from stress.devices import Devices

_NO_ARITHMETIC = {
    *("bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice"),
    *("dynamic_update_slice", "gather", "iota", "optimization_barrier", "pad", "reshape", "rev", "scatter"),
    *("select_n", "slice", "split", "squeeze", "transpose"),
}
"""Primitives that move numbers and make none."""


def floor(config: Run, devices: Devices) -> dict[str, float]:
    """Nanoseconds a path-step takes at least, by bytes and by operations, on all devices together."""
    import jax
    import jax.numpy as jnp
    from stress_kernels.simulate import open_carry, path_keys
    from stress_kernels.step import step

    built = build(config)
    world, ladders, shock = on_device(built)
    paths = min(config.chunk, built.together)
    assets = len(config.assets)
    carry, like = jax.eval_shape(lambda: open_carry(ladders, world, None, assets, paths))
    # Of the window of the mark's average one sample is written and one read; the record waits for events.
    sums = carry.memory.basis_sum, carry.memory.premium_sum
    kept = carry.state, sums, carry.memory.basis_sum
    numbers = sum(leaf.size for leaf in jax.tree.leaves(kept)) / paths
    given = jax.ShapeDtypeStruct((assets, paths), config.dtype)

    def one_step(carry: Any, log: Any, depth: Any) -> Any:
        return step(carry, log, depth, like, ladders, world)

    dense = operations(jax.make_jaxpr(one_step)(carry, given, given).jaxpr) / paths
    keys = jax.eval_shape(lambda: path_keys(jnp.uint32(0), jnp.int32(0), paths))
    drawn = operations(jax.make_jaxpr(shock.paths)(keys).jaxpr) / paths / shock.steps
    copied, multiplied = rates(int(numbers * paths), config.dtype, devices)
    return {"bytes": 1e9 * (numbers + 2 * assets) / copied, "sums": 1e9 * (dense + drawn) / multiplied}


def operations(jaxpr: Any) -> float:
    """Arithmetic operations of a program, one for each number made; none of what a condition decides about."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, equation.params
        if name in ("while", "cond"):
            continue
        subs = [getattr(x, "jaxpr", x) for x in inner.values() if hasattr(getattr(x, "jaxpr", x), "eqns")]
        if subs:
            total += inner.get("length", 1) * sum(operations(sub) for sub in subs)
        elif name not in _NO_ARITHMETIC:
            total += sum(math.prod(out.aval.shape) for out in equation.outvars if hasattr(out.aval, "shape"))
    return total


def rates(size: int, dtype: str, devices: Devices) -> tuple[float, float]:
    """Numbers that all devices together copy, and numbers that they make by sums and products, in a second.

    Args:
        size: Numbers of the table that each of them copies.
        dtype: Of the numbers.
        devices: Those that share the work.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.make_mesh((len(devices.all),), ("x",), devices=devices.all)
    spread = NamedSharding(mesh, PartitionSpec("x"))
    again, chain = 200, 64

    def copy(x: Any) -> Any:
        return jax.lax.fori_loop(0, again, lambda _, x: jax.lax.optimization_barrier(-x), x)

    def multiply(x: Any) -> Any:
        def many(_: Any, x: Any) -> Any:
            for _ in range(chain):
                x = x * x + x
            return x

        return jax.lax.fori_loop(0, again, many, x)

    def rate(program: Callable[[Any], Any], size: int, operations: int) -> float:
        table = jax.device_put(jnp.zeros(size * len(devices.all), dtype), spread)
        shared = jax.jit(jax.shard_map(program, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x")))

        def once() -> None:
            jax.block_until_ready(shared(table))

        return table.size * operations / in_turns({"it": once}, 5)["it"].min()

    return rate(copy, size, again), rate(multiply, 4096, 2 * chain * again)
