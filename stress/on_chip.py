"""Which runs go through the kernel that keeps paths on the chip of a GPU, and what others have that it does not know.

The environment variable LIQSTRESS_CHIP changes what is chosen: `off` never takes the kernel, `interpret` takes it on
any device, as ordinary array programs, which is slow and for tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.devices import Devices
from stress.programs import Block, interpreted, simulated, simulated_on_chip
from stress.spec import InputError

if TYPE_CHECKING:
    from stress.build import Built

SWITCH = "LIQSTRESS_CHIP"
_OLDEST = 8.0
"""Compute capability of the GPUs that the kernel's compiler knows: Ampere and later."""


def block_of(built: Built, devices: Devices) -> Block:
    """The program for a run's blocks of paths."""
    wish = os.environ.get(SWITCH, "")
    if wish not in ("", "off", "interpret"):
        raise InputError(f"{SWITCH} is {wish!r}, expected 'off' or 'interpret'. Unset it to have a run choose.")
    if wish == "off" or missing(built):
        return simulated
    if wish == "interpret":
        return interpreted
    return simulated_on_chip if all(map(fits, devices.all)) else simulated


def fits(device: Any) -> bool:
    """Whether a device is one for which the kernel can be compiled."""
    return device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= _OLDEST


def missing(built: Built) -> list[str]:
    """What of a run the kernel does not know, for people; nothing where it knows all."""
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
        "pools without money": bool(np.any(np.asarray(world.pool_cash) <= 1.0)),
    }
    return [what for what, there in found.items() if there]
