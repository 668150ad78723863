"""How fast a run is on this machine: path-steps a second, where the time goes, and how far that is from a floor.

What is timed is what `liqstress run` does: the same compiled program, random numbers and every layer of the config
included. Contestants take turns, and figures are medians over the turns with their range.

The time of a step is parted by programs that do less: random numbers alone; a day on which nothing can trigger, which
adds the dense update of all markets; the day itself, which adds the events.

Two cases are of the order book alone, without the layers behind it: there twins in C++, numba and NumPy
(`tests/bench/step_*`) are given the prices that our program draws, and as many threads as it has devices. Before one
is timed, every hour's volume must agree.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stress.bench_floor import floor
from stress.bench_given import book_alone, given, leaves_out_nothing
from stress.bench_turns import Spread, in_turns
from stress.bench_twin import NAMES, NEEDS, twins
from stress.config import Run, load_config
from stress.devices import Devices, Kind, choose
from stress.diffusions import Gbm
from stress.programs import GIVEN_UP
from stress.results import coords
from stress.run import Progress, Simulation
from stress.scenarios import Prescribed
from stress.spec import BLOCK, InputError
from stress.store import Store
from stress.variables import VARIABLES

if TYPE_CHECKING:
    from rich.console import Console

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Those of a source checkout."""
_GPU_PATHS = 65_536
"""The largest chunk."""
_FLAT = 1e-9
"""Daily volatility at which nothing triggers [1]."""
_FALL = 0.2
_BETA = 1.3
"""Of the other assets, about that of the largest in common falls."""


def cases(paths: int, hours: int) -> dict[str, Run]:
    """The days that are timed: a driftless diffusion at the model's defaults; and with BTC falling by 20 % in six hours
    from the first on, or in what there is of them. Each with all layers, and with the order book alone."""
    runs = {}
    for behind, changes in (("", {}), (", book alone", book_alone())):
        given = {"chunk": paths, "horizon_hours": hours, **changes}
        calm = load_config(CONFIGS / "reference.toml", paths=paths, overrides=given)
        assert isinstance(calm.shock, Gbm)
        others = {asset: _BETA for asset in calm.assets if asset != "BTC"}
        minutes, moves = (60, 60 * min(hours, 7)), {"BTC": (0.0, -_FALL)}
        fall = Prescribed(kind="prescribed", minutes=minutes, moves=moves, beta=others, noise=calm.shock)
        runs |= {f"calm{behind}": calm, f"crash{behind}": calm.model_copy(update={"shock": fall})}
    return runs


def still(config: Run) -> Run:
    """The same run with a shock of the same shape, too small to trigger anything."""
    shock = config.shock
    if isinstance(shock, Prescribed):
        moves = {asset: tuple(0.0 for _ in path) for asset, path in shock.moves.items()}
        shock = shock.model_copy(update={"moves": moves, "noise": shock.noise and _flat(shock.noise)})
    elif isinstance(shock, Gbm):
        shock = _flat(shock)
    return config.model_copy(update={"shock": shock})


def _flat(shock: Gbm) -> Gbm:
    return shock.model_copy(update={"daily_volatility": dict.fromkeys(shock.daily_volatility, _FLAT)})


@dataclass(frozen=True)
class Timed:
    """What was measured of a case."""

    case: str
    device: str
    kernel: str
    """As in `fast.NAMES`."""
    path_steps: int
    """In a chunk."""
    whole: Spread
    """Seconds of a chunk."""
    phases: dict[str, float]
    """Nanoseconds a path-step: `random` numbers, `dense` update, `events`, `writing`."""
    floor: dict[str, float]
    """Nanoseconds a path-step: `bytes`, `sums`."""
    given_up: float
    """Share of the paths that a fast kernel gave up, and the plain program did again [1]."""
    to_twins: dict[str, Spread]
    """A twin's seconds over ours without random numbers; no twin where it leaves something out or cannot be had."""

    @property
    def path_steps_per_s(self) -> float:
        """By the median."""
        return self.path_steps / self.whole.median

    @property
    def floor_fraction(self) -> float:
        """The floor over the time it takes [1]."""
        return max(self.floor.values()) * self.path_steps_per_s / 1e9

    def row(self) -> dict[str, Any]:
        """For a machine; a twin that was not timed has no ratio."""
        ratios = {name: self.to_twins[name].median if name in self.to_twins else None for name in NAMES}
        return {
            "case": self.case,
            "path_steps_per_s": self.path_steps_per_s,
            **{f"ratio_to_{name}": ratio for name, ratio in ratios.items()},
            "floor_fraction": self.floor_fraction,
        } | asdict(self)


def bench(*, quick: bool = True, device: Kind = "auto", progress: Progress | None = None) -> list[Timed]:
    """Time every case.

    Args:
        quick: A block of 1,024 paths a device over 6 hours in 3 turns; otherwise 4 blocks over a day in 7. A GPU has
            65,536 paths.
        device: As in `stress.run.run`.
        progress: Told of every case that is done.

    Raises:
        InputError: There is no checkout around this package, or no such device.
    """
    needs_checkout()
    devices, report = choose(device), progress or (lambda done, cases: None)
    blocks, hours, turns = (1, 6, 3) if quick else (4, 24, 7)
    paths = BLOCK * blocks * len(devices.all) if devices.kind == "cpu" else _GPU_PATHS
    runs, timed = cases(paths, hours), []
    report(0, len(runs))
    for name, config in runs.items():
        timed.append(_time(name, config, devices, turns))
        report(len(timed), len(runs))
    return timed


def needs_checkout() -> None:
    """Refuse to go on without what a package leaves out.

    Raises:
        InputError: There is no checkout around this package.
    """
    if not CONFIGS.is_dir():
        raise InputError(
            f"{CONFIGS}: is not there. The bench needs a source checkout: clone the project, run it there."
        )


def _time(name: str, config: Run, devices: Devices, turns: int) -> Timed:
    whole = Simulation.of(config, devices)
    contestants = {
        "whole": whole,
        "still": Simulation.of(still(config), devices),
        "random": Simulation.of(config, devices, random_numbers),
    }
    calls: dict[str, Callable[[], float | None]]
    calls = {key: functools.partial(finish, simulation) for key, simulation in contestants.items()}
    comparable = whole.devices.kind == "cpu" and leaves_out_nothing(config)
    others = twins(given(config, whole.devices), len(whole.devices.all)) if comparable else {}
    if others:
        ours = whole.chunk(0)
        for twin in others.values():
            twin.check(ours)
    calls |= {key: twin.seconds for key, twin in others.items()}
    seconds = in_turns(calls, turns)
    steps = config.horizon_hours * 3600 // config.step_seconds
    path_steps = steps * config.chunk
    of_whole, of_still, of_random = (1e9 * float(np.median(seconds[key])) / path_steps for key in contestants)
    return Timed(
        case=name,
        device=whole.devices.name,
        kernel=whole.kernel,
        path_steps=path_steps,
        whole=Spread.of(seconds["whole"]),
        phases={
            "random": of_random,
            "dense": of_still - of_random,
            "events": of_whole - of_still,
            "writing": 1e9 * _writing(config, whole) / path_steps,
        },
        floor=floor(config, whole.devices),
        given_up=share_given_up(whole),
        to_twins={key: Spread.of(seconds[key] / (seconds["whole"] - seconds["random"])) for key in others},
    )


def finish(simulation: Simulation, chunks: int = 1) -> None:
    """Compute the first chunks, what a fast kernel gives up included, and wait for them."""
    import jax

    jax.block_until_ready(list(simulation.do_again(_given_up(simulation, chunks))[1]))


def _given_up(simulation: Simulation, chunks: int) -> np.ndarray:
    """Paths of the first chunks that a fast kernel gives up, by number."""
    import jax

    blocks = [jax.block_until_ready(block) for block in simulation.compute(range(chunks))]
    flags = [np.asarray(block[GIVEN_UP]) for block in blocks if isinstance(block, dict) and GIVEN_UP in block]
    paths = min(chunks * simulation.config.chunk, simulation.config.paths)
    return np.flatnonzero(np.concatenate(flags)[:paths]) if flags else np.zeros(0, int)


def share_given_up(simulation: Simulation, chunks: int = 1) -> float:
    """Of the paths of the first chunks [1]."""
    return len(_given_up(simulation, chunks)) / min(chunks * simulation.config.chunk, simulation.config.paths)


def random_numbers(keys: Any, wanted: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The shock alone; all of it is made, its end is kept."""
    import jax

    return jax.lax.optimization_barrier(shock.paths(keys))[-1]


def _writing(config: Run, simulation: Simulation) -> float:
    """Seconds to write a chunk to a store."""
    arrays = simulation.chunk(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "run.zarr", list(VARIABLES.values()), coords(config), {}, config.chunk)
        began = time.perf_counter()
        store.write(0, arrays)
        return time.perf_counter() - began


def print_table(timed: list[Timed], out: Console) -> None:
    """Print what was timed."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    titles = ("case", "path-steps/s", "range", *timed[0].phases, "floor", "floor/time")
    for i, title in enumerate(titles):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    for each in timed:
        low, high = (each.whole.median / seconds - 1 for seconds in (each.whole.most, each.whole.least))
        times = [f"{ns:,.0f}" for ns in (*each.phases.values(), max(each.floor.values()))]
        speed = [f"{each.path_steps_per_s:,.0f}", f"{low:+.0%} {high:+.0%}"]
        table.add_row(each.case, *speed, *times, f"{each.floor_fraction:.1%}")
    out.print(table)
    out.print(
        "Phases (random numbers, dense update, events; writing beside them) and floor in ns a path-step: a step of"
    )
    out.print(f"all markets of one path. Device: {timed[0].device}; kernel: {timed[0].kernel}.")
    for each in timed:
        if each.given_up:
            out.print(
                f"{each.case}: {each.given_up:.1%} of the paths were given up and done again by the plain program."
            )
    out.print("On a GPU, liqstress bench --chip times the kernel that runs take there beside the plain program.")
    _print_twins(timed, out)


def _print_twins(timed: list[Timed], out: Console) -> None:
    """Print how long the twins take, and which of them are missing."""
    from rich.table import Table

    table = Table("case", *NAMES.values(), box=None, padding=(0, 2, 0, 0))
    for each in timed:
        if each.to_twins:
            table.add_row(each.case, *(_ratio(each.to_twins.get(name)) for name in NAMES))
    if table.row_count:
        out.print("Time of a twin of the step over ours without random numbers, median of the turns (range):")
        out.print(table)
    for name, needed in NEEDS.items():
        if not any(name in each.to_twins for each in timed):
            missing = f"Without the twin in {NAMES[name]}: it is timed beside a CPU, where there is {needed}."
            out.print(missing, markup=False)


def _ratio(ratio: Spread | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.3g} ({ratio.least:.3g} to {ratio.most:.3g})"


class Row(Protocol):
    """Something that was timed."""

    def row(self) -> dict[str, Any]: ...


def to_json(timed: Sequence[Row]) -> str:
    """A list of rows."""
    return json.dumps([each.row() for each in timed], indent=2) + "\n"
