"""What longer steps change in the first day after a shock: the same paths with steps of 1, 15 and 60 minutes.

    uv run python -m tests.statistical.recovery_steps        # some minutes

Every path of the longer steps is that of the shortest, seen at its steps. Printed are, for each length, the mean,
median and 95 % quantile of the volume liquidated in the day, the mean over that of the shortest steps, with its
standard error, and the correlation of paths with theirs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from stress_kernels.recovery import Later, simulate_on
from stress_kernels.simulate import path_keys

from stress.build import build, on_device
from stress.config import load_config

CONFIG = Path(__file__).parents[2] / "configs" / "recovery.toml"
MINUTES, PATHS = (1, 15, 60), 512


def tables(minutes: int):
    """World, ladders and shock of a day of such steps."""
    days = {"behaviour.recovery.days": 1, "behaviour.recovery.step_minutes": minutes}
    return on_device(build(load_config(CONFIG, overrides=days)))


def seen_at(later: Later, each: int, nearer: jax.Array, nearer_long: jax.Array) -> Later:
    """What moves prices by steps as long as so many: the same path, and the distance for what it does inside them."""
    squares = (later.nearer / nearer[None, :, None]) ** 2
    mean = jnp.mean(squares.reshape(-1, each, *squares.shape[1:]), axis=1)
    return replace(later, log=later.log[each - 1 :: each], nearer=nearer_long[None, :, None] * jnp.sqrt(mean))


def main() -> None:
    """Print a line for each length of steps."""
    first = tables(MINUTES[0])[2]
    keys = path_keys(jnp.uint32(1), jnp.int32(0), PATHS)
    log = jax.jit(first.paths)(keys)
    shortest, base = jax.jit(first.after.drawn)(keys, log), np.ones(PATHS)
    for minutes in MINUTES:
        world, ladders, shock = tables(minutes)
        later = seen_at(shortest, minutes, first.after.nearer, shock.after.nearer)
        out = jax.device_get(jax.jit(simulate_on)(log, later, ladders, world))
        volume = out["recovery_liquidation_volume"][1].sum(axis=(0, 1, 2), dtype=float) / 1e6
        base = volume if minutes == MINUTES[0] else base
        ratio = volume.mean() / base.mean()
        error = np.std(volume - ratio * base) / base.mean() / np.sqrt(PATHS)
        middle, rare = np.quantile(volume, [0.5, 0.95])
        same = np.corrcoef(volume, base)[0, 1]
        print(
            f"{minutes:3} min: mean {volume.mean():.0f} M USD, median {middle:.0f}, 95 % {rare:,.0f}; "
            f"ratio {ratio:.3f} +- {error:.3f}, correlation {same:.4f}"
        )


if __name__ == "__main__":
    main()
