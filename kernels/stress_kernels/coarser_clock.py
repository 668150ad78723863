"""What remembers earlier steps, put on a clock with longer steps: windows, running sums, and the number of the step.

Nothing is forgotten that the longer steps can hold: samples of the basis are averaged over the longer step, highest
equities are the highest of the blocks that a longer block covers. Circuit breakers are not on the new clock: their
windows are of minutes, and one that is tripped is open again.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.money import add_up
from stress_kernels.state import Memory
from stress_kernels.world import World


def slowed(memory: Memory, fine: World, coarse: World) -> Memory:
    """What is remembered after the last hour of a run, by the clock on which it goes on.

    Args:
        memory: After the last step.
        fine: World of that step.
        coarse: The same with steps that are some of the fine ones each, and no circuit breakers.
    """
    memory = replace(memory, halts=None, seen=None)
    each = steps_in_one(fine, coarse)
    if each == 1:
        return memory
    steps = coarse.hours * coarse.steps_per_hour
    basis, total = _samples(memory.basis, each, steps, coarse)
    return replace(
        memory,
        basis=basis,
        basis_sum=total,
        premium_sum=memory.premium_sum / each,
        block_peaks=_peaks(memory.block_peaks, each, fine, coarse),
        step=jnp.asarray(steps, memory.step.dtype),
    )


def steps_in_one(fine: World, coarse: World) -> int:
    """Steps of the fine clock in one of the coarse."""
    return fine.steps_per_hour // coarse.steps_per_hour


def _samples(
    basis: Float[Array, "window v a p"], each: int, steps: int, coarse: World
) -> tuple[Float[Array, "longer v a p"], Float[Array, "v a p"]]:
    """Samples of the basis, each the mean of the fine ones that there still are in its step, and their sum over the
    window of each venue.

    Args:
        basis: Of the fine clock.
        each: Fine steps in a coarse one.
        steps: Coarse steps so far.
        coarse: World of the coarse clock.
    """
    size, last = basis.shape[0], steps * each
    oldest = max(last - size, 0)
    latest_first = []
    for number in range(steps - 1, max(steps - coarse.window, 0) - 1, -1):
        first = max(number * each, oldest)
        there = range(first, (number + 1) * each) or [oldest]
        latest_first.append(add_up(basis[jnp.array([k % size for k in there])], 0) / len(there))
    samples = jnp.stack(latest_first)
    within = jnp.arange(len(samples))[:, None] < coarse.rules.mark_window[None]
    total = add_up(jnp.where(within[..., None, None], samples, 0.0), 0)
    places = jnp.array([(steps - 1 - i) % coarse.window for i in range(len(samples))])
    return jnp.zeros((coarse.window, *basis.shape[1:]), basis.dtype).at[places].set(samples), total


def _peaks(peaks: Float[Array, "block f p"], each: int, fine: World, coarse: World) -> Float[Array, "longer f p"]:
    """Largest equity in each block of the coarse clock: that of the fine blocks which lie in it, in part or whole."""
    length, longer = fine.block_steps, coarse.block_steps * each
    last_step = fine.hours * fine.steps_per_hour - 1
    known = range(max(last_step // length - fine.blocks, 0), last_step // length + 1)
    count = coarse.blocks + 1
    found = jnp.full((count, *peaks.shape[1:]), -jnp.inf, peaks.dtype)
    last = last_step // longer
    for block in range(max(last - coarse.blocks, 0), last + 1):
        inside = [b for b in known if b * length < (block + 1) * longer and (b + 1) * length > block * longer]
        if inside:
            highest = jnp.max(peaks[jnp.array([b % (fine.blocks + 1) for b in inside])], axis=0)
            found = found.at[block % count].set(highest)
    return found
