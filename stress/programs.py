"""Programs that compute blocks of paths: one for each shape of a run, kept between starts.

JAX keeps what it has compiled, but needs a second and a half to trace and lower our step before it can look it up. So
what was lowered is kept as well, beside the compiled programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stress.devices import Devices, cache_folder

Block = Callable[..., Any]
"""Given the keys of some paths, which of them are wanted, and what all paths share, gives arrays with paths last."""
GIVEN_UP = "given_up"
"""Array of a fast kernel: paths that it does not know how to go on with."""
_SAME = 1e-3
"""Share of the largest hour's volume by which programs may differ that round otherwise [1]."""


def simulated(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """Everything of some paths; those that only fill up a block stand still, and cost little."""
    import jax.numpy as jnp
    from stress_kernels.recovery import simulate_on
    from stress_kernels.simulate import simulate

    def through(log: Any) -> Any:
        if shock.after is None:
            return simulate(log, ladders, world, accounts)
        later = shock.after.drawn(keys, log)
        return simulate_on(log, replace(later, log=jnp.where(wanted, later.log, 0.0)), ladders, world)

    return _drawn(through, keys, wanted, shock)


def simulated_on_chip(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The same by the kernel of a GPU, of runs of which `fast.missing` names nothing; and which paths it gives up."""
    from stress_kernels.chip import on_chip

    return _drawn(lambda log: _said(*on_chip(log, ladders, world)), keys, wanted, shock)


def interpreted(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The same by that kernel as ordinary array programs, on any device: slow, for tests."""
    from stress_kernels.chip import on_chip

    return _drawn(lambda log: _said(*on_chip(log, ladders, world, interpret=True)), keys, wanted, shock)


def simulated_natively(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The same by the kernel of a CPU."""
    from stress_kernels.native import on_core

    return _drawn(lambda log: _said(*on_core(log, ladders, world)), keys, wanted, shock)


def _said(outputs: dict[str, Any], given_up: Any) -> dict[str, Any]:
    return outputs | {GIVEN_UP: given_up}


def _drawn(through: Callable[[Any], Any], keys: Any, wanted: Any, shock: Any) -> Any:
    import jax.numpy as jnp

    log, log_weight = shock.drawn(keys)
    outputs = through(jnp.where(wanted, log, 0.0))
    return outputs if log_weight is None else outputs | {"log_weight": log_weight}


def mesh_of(devices: Devices) -> Any:
    """The devices in a row, each with paths of its own."""
    import jax
    from jax.sharding import AxisType

    return jax.make_mesh((len(devices.all),), ("paths",), axis_types=(AxisType.Auto,), devices=devices.all)


@cache
def program_of(block: Block, devices: Devices, size: int) -> Callable[..., Any]:
    """A block of paths on each device at once, as one program; runs of equal shapes share what is compiled.

    Every device has a block of the same size whatever their number and that of the paths: in a program of another shape
    the compiler may round a last bit otherwise.

    Args:
        block: What is computed.
        devices: Those that have a block each.
        size: Paths in a block.

    Returns:
        Of the numbers of all their paths, which of these are wanted, the seed, and what all paths share, gives arrays
        with paths first.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec
    from stress_kernels.simulate import keys_of

    def paths_first(numbers: Any, wanted: Any, seed: Any, *fixed: Any) -> Any:
        outputs = block(keys_of(seed, numbers), wanted, *fixed)
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), outputs)

    along, same = PartitionSpec("paths"), PartitionSpec()
    sharded = jax.shard_map(
        paths_first, mesh=mesh_of(devices), in_specs=(along, along, *[same] * 5), out_specs=along, check_vma=False
    )
    program = jax.jit(sharded)
    if block is simulated_on_chip:
        return or_plain(program, lambda: program_of(simulated, devices, size))
    return _kept(program, block, devices, size) if block in (simulated, simulated_natively) else program


def or_plain(program: Callable[..., Any], plain: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """A program of the kernel on the chip; where it fails in the first call, or says something else of paths that it
    does not give up, what `plain` gives takes its place."""
    chosen: Callable[..., Any] | None = None

    def call(*given: Any) -> Any:
        nonlocal chosen
        if chosen is not None:
            return chosen(*given)
        sure = plain()
        outputs = sure(*given)
        wrong = _wrong(program, given, outputs)
        if wrong:
            warnings.warn(f"{wrong}: the plain program takes its place", RuntimeWarning, stacklevel=2)
        chosen = sure if wrong else program
        return outputs

    return call


def _wrong(program: Callable[..., Any], given: tuple[Any, ...], expected: Any) -> str:
    """What is wrong with what the kernel makes of some paths, as a clause; nothing where volumes of all hours agree."""
    try:
        found = program(*given)
        known = ~np.asarray(found[GIVEN_UP])
    except Exception as error:  # Of what a compiler may raise, nothing is known in advance.
        return f"the kernel on the chip fails here ({(str(error) or type(error).__name__).splitlines()[0]})"
    volumes = (np.asarray(x["liquidation_volume"], np.float64)[known] for x in (found, expected))
    ours, theirs = (x.sum(axis=(0, *range(2, x.ndim))) for x in volumes)
    apart = float(np.max(np.abs(ours - theirs)) / max(np.max(theirs), 1.0))
    return "" if apart <= _SAME else f"the kernel on the chip is off by {apart:.2g} of an hour's volume"


def _kept(program: Callable[..., Any], block: Block, devices: Devices, size: int) -> Callable[..., Any]:
    """The same program, lowered at its first use on any machine with this cache."""
    import jax

    lowered: dict[str, Callable[..., Any]] = {}

    def call(*given: Any) -> Any:
        leaves, structure = jax.tree.flatten(given)
        shapes = [(x.shape, x.dtype) for x in leaves]
        key = _key(block.__name__, structure, shapes, devices.kind, len(devices.all), size)
        if key not in lowered:
            lowered[key] = jax.jit(_exported(program, structure, leaves, cache_folder().parent / "lowered" / key).call)
        return lowered[key](*leaves)

    return call


def _exported(program: Callable[..., Any], structure: Any, leaves: list[Any], file: Path) -> Any:
    """What a file holds of a program of leaves; made, and kept there, where it holds nothing."""
    import jax
    from jax import export
    from stress_kernels.native import TARGET

    with contextlib.suppress(Exception):  # Of what is not as it was written, no error is known in advance.
        return export.deserialize(bytearray(file.read_bytes()))
    # What these mean may change between versions of JAX and of ours, and so does the key.
    unchecked = [export.DisabledSafetyCheck.custom_call(name) for name in ("LayoutConstraint", TARGET)]
    flat = jax.jit(lambda *leaves: program(*jax.tree.unflatten(structure, leaves)))
    made = export.export(flat, disabled_checks=unchecked)(*leaves)
    with contextlib.suppress(OSError):  # A cache that cannot be written makes the next start slower.
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(made.serialize())
        Path(part.name).replace(file)
    return made


def _key(*parts: Any) -> str:
    """A hash of what decides what is lowered: the code, JAX, and shapes, sizes and rules."""
    import jax

    return hashlib.sha256(repr((_code(), jax.__version__, jax.config.x64_enabled, parts)).encode()).hexdigest()


@cache
def _code() -> str:
    """A hash of all modules that a program may come from."""
    import stress_kernels

    here, kernels = Path(__file__).parent, Path(str(stress_kernels.__file__)).parent
    files = sorted(file for folder in (here, kernels) for file in folder.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
