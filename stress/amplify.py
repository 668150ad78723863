"""Amplification: a run and its twin without impact, on the same random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stress.config import Run
from stress.devices import Kind
from stress.run import Progress, default_store
from stress.run import run as simulate
from stress.spec import InputError
from stress.twins import Amplification, compare

if TYPE_CHECKING:
    import xarray as xr


def amplification(config: Run, *, device: Kind = "auto", resume: bool = False) -> Amplification:
    """How much more is liquidated because forced orders move prices.

    The only honest measure: the volume of a run against that of its twin, in which they do not.

    Args:
        config: With impact.
        device: As of `stress.run`; so is `resume`.
        resume: Go on with unfinished stores.

    Raises:
        InputError: The config has no impact, or is wrong otherwise.
        RunError: One of the two failed; what is finished is safe.
    """
    return compare(*run_both(config, device=device, resume=resume))


def run_both(
    config: Run,
    folder: str | Path = "runs",
    *,
    device: Kind = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Simulate a run and its twin, each kept in a store of its own; finished ones are opened again.

    Args:
        config: With impact.
        folder: Where the stores are.
        device: As of `stress.run`.
        resume: As of `stress.run`.
        progress: Told of paths done and in all, over both runs.
    """
    both = (config, twin_of(config))

    def told(done_before: int) -> Progress:
        return lambda done, paths: progress(done_before + done, 2 * paths) if progress else None

    datasets = [
        simulate(one, default_store(one, Path(folder)), device=device, resume=resume, progress=told(i * config.paths))
        for i, one in enumerate(both)
    ]
    return datasets[0], datasets[1]


def twin_of(config: Run) -> Run:
    """The same run without impact.

    Raises:
        InputError: It has none.
    """
    if config.impact.i_ref == 0:
        raise InputError(
            "impact.i_ref is 0, expected more: amplification compares a run with its twin without impact. "
            "Leave it out of the config for the default."
        )
    impact = config.impact.model_copy(update={"i_ref": 0.0})
    return config.model_copy(update={"name": f"{config.name}-no-impact", "impact": impact})
