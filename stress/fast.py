"""Which runs go through a fast kernel, and what others have that these do not know.

There are two, which know the same: one that keeps paths on the chip of a GPU (`stress_kernels.chip`), and one for the
cores of a CPU (`stress_kernels.native`). The environment variable LIQSTRESS_KERNEL changes what is chosen: `plain`
never takes them, `interpret` takes that of a GPU on any device, as ordinary array programs: slow, for tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stress import native
from stress.devices import Devices
from stress.programs import Block, interpreted, simulated, simulated_natively, simulated_on_chip
from stress.spec import InputError

if TYPE_CHECKING:
    from stress.build import Built

SWITCH = "LIQSTRESS_KERNEL"
NAMES = {
    simulated: "plain",
    simulated_natively: "native",
    simulated_on_chip: "chip",
    interpreted: "chip, interpreted",
}
"""Of the programs, for stores."""
_OLDEST = 8.0
"""Compute capability of the GPUs that the kernel's compiler knows: Ampere and later."""


def block_of(built: Built, devices: Devices) -> Block:
    """The program for a run's blocks of paths."""
    wish = os.environ.get(SWITCH, "")
    if wish not in ("", "plain", "interpret"):
        raise InputError(f"{SWITCH} is {wish!r}, expected 'plain' or 'interpret'. Unset it to have a run choose.")
    if wish == "plain" or missing(built):
        return simulated
    if wish == "interpret":
        return interpreted
    if devices.kind == "cpu":
        return simulated if native.lacking() else simulated_natively
    return simulated_on_chip if all(map(fits, devices.all)) else simulated


def said(built: Built) -> str:
    """Which program a run would take, for people."""
    if os.environ.get(SWITCH) == "plain":
        return f"program: the plain one, as {SWITCH} says"
    if more := missing(built):
        return f"program: the plain one, as fast kernels do not know {', '.join(more)}"
    lacking = native.lacking()
    on_cpu = f"the plain one, as {lacking}" if lacking else f"the native kernel ({native.compiler()})"
    return f"program: on a CPU {on_cpu}, on a GPU the kernel on the chip"


def fits(device: Any) -> bool:
    """Whether a device is one for which the kernel of a GPU can be compiled."""
    return device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= _OLDEST


def missing(built: Built) -> list[str]:
    """What of a run the kernels do not know, for people; nothing where they know all."""
    import jax

    world, ladders = built.world, built.ladders
    found = {
        "accounts on cross margin": built.accounts is not None,
        "exact triggers": ladders.probes != 0,
        "entry classes": ladders.rows.shape[3] > 1,
        "stop orders": ladders.stops is not None,
        "double precision": ladders.rows.dtype != np.float32,
        "coins as money": world.inverse is not None,
        "vaults": world.vaults is not None,
        "transfers between pools": world.transfers is not None,
        "circuit breakers": world.breakers is not None,
        "behaviour": world.behaviour is not None,
        "days after the last hour": world.recovery is not None,
        "overlays": bool(jax.tree.leaves(world.conditions)),
        "deleveraging at any fall": bool(np.any(np.asarray(world.rules.adl_share) <= 0.0)),
        "pools without money": bool(np.any(np.asarray(world.pool_cash) <= 1.0)),
    }
    return [what for what, there in found.items() if there]
