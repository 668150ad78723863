"""The kernel that keeps paths on the chip beside the plain program, on a GPU.

A day of 100,000 paths at three venues with six assets: the cases of `bench`, whose fifth asset counts twice. Both
draw the same random numbers, which are timed alone too; the kernel is also timed without doing again what it gives up.

The floor is the larger of two times: that of the numbers that have to come from or go to the memory of the device, at
the rate at which it copies, and that of the sums of random numbers and of steps without events, at the rate at which it
multiplies and adds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stress.bench import cases, finish, needs_checkout, random_numbers, share_given_up
from stress.bench_floor import operations, rates
from stress.bench_turns import Spread, in_turns
from stress.build import build, on_device
from stress.config import Run
from stress.devices import Devices, Kind, choose
from stress.fast import fits
from stress.programs import simulated, simulated_on_chip
from stress.run import Progress, Simulation
from stress.spec import BLOCK, InputError

if TYPE_CHECKING:
    from rich.console import Console

PATHS, HOURS = 100_000, 24
_CHUNK = 49 * BLOCK
"""Of two, the smallest that hold all paths."""
_TURNS = 5
_COPIED = 1 << 24
"""Numbers of the table by which the rate of copying is taken: more than any cache holds."""
_TWICE, _TWIN = "DOGE", "DOGE2"


@dataclass(frozen=True)
class OnChip:
    """What was measured of a case: seconds of all paths, random numbers included."""

    case: str
    device: str
    path_steps: int
    random: Spread
    kernel: Spread
    """Without what it gives up being done again."""
    whole: Spread
    plain: Spread
    given_up: float
    """Share of the paths [1]."""
    floor: dict[str, float]
    """Seconds: `bytes`, `sums`."""

    @property
    def to_plain(self) -> float:
        """The plain program's time over that of kernel and engine together."""
        return self.plain.median / self.whole.median

    @property
    def floor_fraction(self) -> float:
        """The floor over the kernel's time [1]."""
        return max(self.floor.values()) / self.kernel.median

    def row(self) -> dict[str, Any]:
        """For a machine."""
        return {"ratio_to_plain": self.to_plain, "floor_fraction": self.floor_fraction} | asdict(self)


def on_chip(*, device: Kind = "auto", progress: Progress | None = None) -> list[OnChip]:
    """Time every case.

    Raises:
        InputError: There is no checkout around this package, or no GPU for which the kernel can be built.
    """
    needs_checkout()
    devices, report = choose(device), progress or (lambda done, cases: None)
    if not all(map(fits, devices.all)):
        raise InputError(
            f"bench --chip: the device is {devices.name}, expected an NVIDIA GPU of compute capability 8.0 or later. "
            "Run it on a machine that has one, or leave out --chip."
        )
    runs, timed = wide_cases(), []
    report(0, len(runs))
    for name, config in runs.items():
        timed.append(_time(name, config, devices))
        report(len(timed), len(runs))
    return timed


def wide_cases() -> dict[str, Run]:
    """The cases of the bench with six assets, 100,000 paths and a day."""
    return {name: _wide(config) for name, config in cases(_CHUNK, HOURS).items()}


def _wide(config: Run) -> Run:
    """The same run with a sixth asset, equal to the fifth and with half of its positions."""
    data = config.model_dump(mode="json")
    portfolio, shock = data["portfolio"]["population"], data["shock"]
    noise, shares = shock.get("noise") or shock, portfolio["asset_shares"]
    shares[_TWICE] /= 2
    by_asset = [data["assets"], data["prices"]["start"], shares, portfolio["leverage"]["asset_tilt"]]
    by_asset += [noise["daily_volatility"], *(venue["markets"] for venue in data["venues"].values())]
    by_asset += [shock["beta"]] if "beta" in shock else []
    for table in by_asset:
        table[_TWIN] = table[_TWICE]
    return Run.model_validate(data | {"paths": PATHS})


def _time(name: str, config: Run, devices: Devices) -> OnChip:
    programs = {"random": random_numbers, "whole": simulated_on_chip, "plain": simulated}
    simulations = {key: Simulation.of(config, devices, program) for key, program in programs.items()}
    chunks, whole = -(-config.paths // config.chunk), simulations["whole"]
    calls: dict[str, Callable[[], float | None]]
    calls = {key: functools.partial(finish, simulation, chunks) for key, simulation in simulations.items()}
    calls["kernel"] = functools.partial(_kernel_alone, whole, chunks)
    seconds = in_turns(calls, _TURNS)
    path_steps = config.paths * config.horizon_hours * 3600 // config.step_seconds
    return OnChip(
        case=name,
        device=devices.name,
        path_steps=path_steps,
        **{key: Spread.of(each) for key, each in seconds.items()},
        given_up=share_given_up(whole, chunks),
        floor={key: path_steps * of_step for key, of_step in _floor(config, devices).items()},
    )


def _kernel_alone(simulation: Simulation, chunks: int) -> None:
    """Compute some chunks and wait for them, without doing again what the kernel gives up."""
    import jax

    for arrays in simulation.compute(range(chunks)):
        jax.block_until_ready(arrays)


def _floor(config: Run, devices: Devices) -> dict[str, float]:
    """Seconds that a path-step takes at least, by bytes and by operations, on all devices together."""
    copied, multiplied = rates(_COPIED, config.dtype, devices)
    numbers, sums = traffic(config), arithmetic(config)
    return {"bytes": numbers / 2 / copied, "sums": sums / multiplied}


def traffic(config: Run) -> float:
    """Numbers that a path-step reads from the memory of the device or writes to it: the index without impact, drawn and
    looked at; a sample of the basis into the mark's average and another one out of it; and its part of the report."""
    import jax
    from stress_kernels.chip import LANES
    from stress_kernels.day_report import report_of
    from stress_kernels.day_tables import sizes_of

    built = build(config)
    sizes = sizes_of(built.ladders, built.world, LANES, interpret=False)
    reported = jax.tree.leaves(report_of(sizes, 1, config.dtype))
    steps = sizes.hours * sizes.steps_per_hour
    return 2 * sizes.assets * (1 + sizes.venues) + sum(x.size for x in reported) / steps


def arithmetic(config: Run) -> float:
    """Sums, products and the like of a path-step without events, random numbers included."""
    import jax
    import jax.numpy as jnp
    from stress_kernels.chip import LANES
    from stress_kernels.chip import on_chip as kernel
    from stress_kernels.simulate import path_keys

    built = build(config)
    world, ladders, shock = on_device(built)
    keys = jax.eval_shape(lambda: path_keys(jnp.uint32(0), jnp.int32(0), LANES))
    program = jax.make_jaxpr(lambda keys: kernel(shock.drawn(keys)[0], ladders, world, lanes=LANES)[1])
    return operations(program(keys).jaxpr) / LANES / shock.steps


def print_on_chip(timed: list[OnChip], out: Console) -> None:
    """Print what was timed."""
    from rich.table import Table

    titles = ("case", "random", "kernel", "and done again", "plain", "plain/whole", "given up", "floor", "floor/kernel")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, title in enumerate(titles):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    for each in timed:
        spreads = [f"{1e3 * x.median:,.1f}" for x in (each.random, each.kernel, each.whole, each.plain)]
        ends = [f"{each.to_plain:.1f}", f"{each.given_up:.2%}", f"{1e3 * max(each.floor.values()):,.1f}"]
        table.add_row(each.case, *spreads, *ends, f"{each.floor_fraction:.1%}")
    out.print(table)
    out.print(f"ms of {PATHS:,} paths x {HOURS} h x 18 markets, medians of {_TURNS} turns. Device: {timed[0].device}.")
