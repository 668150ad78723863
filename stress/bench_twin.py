"""The step by hand, as yardsticks: in C++, numba and NumPy, each given our tables and prices, and checked.

Their sources lie in `tests/bench`. C++ is built where there is a compiler and runs as a program of its own; the others
run in this process, numba where it is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import stress_kernels

from stress.bench_given import SUMS, Given
from stress.spec import RunError

SOURCES = Path(__file__).resolve().parents[1] / "tests" / "bench"
VECTORS = Path(str(stress_kernels.__file__)).parent
"""Where what it includes lies."""
NAMES = {"cpp": "C++", "numba": "numba", "numpy": "NumPy"}
"""Of the twins, for machines and for people."""
NEEDS = {
    "cpp": "a g++ that can build it",
    "numba": "numba (pip install 'liqstress[bench]')",
}
"""What has to be there for it."""
TOLERANCE = 1e-3
"""Largest difference of an hour's volume, all markets, mean over paths [1]."""
LEAST_VOLUME = 1e6
"""Hours with less are not compared [USD]."""

Answer = tuple[float, dict[str, np.ndarray]]
"""Seconds, input and output not counted; and sums of every hour (hour v a p) [USD]."""


@dataclass(frozen=True)
class Twin:
    """Somebody else's step, with its input."""

    name: str
    run: Callable[[], Answer]

    def seconds(self) -> float:
        """What it takes, input and output not counted."""
        return self.run()[0]

    def check(self, ours: Mapping[str, Any]) -> dict[str, float]:
        """Compare with what our program says of the same paths.

        Returns:
            The largest relative difference of an hour's volume, and those of the whole time's deficit and surplus.

        Raises:
            RunError: The volumes differ.
        """
        theirs, volume = self.run()[1], _hourly(np.asarray(ours["liquidation_volume"]))
        off = np.abs(_hourly(np.moveaxis(theirs["volume"], -1, 0)) / np.maximum(volume, 1e-9) - 1)
        compared = volume > LEAST_VOLUME
        worst = float(off[compared].max()) if compared.any() else np.inf
        if not worst <= TOLERANCE:
            raise RunError(
                f"the twin in {NAMES[self.name]}: an hour's volume differs from ours by {worst:.1e}; nothing was timed."
            )
        totals = {
            name: (np.asarray(ours[name]).sum(dtype=np.float64), theirs[name].sum(dtype=np.float64))
            for name in SUMS[2:]
        }
        return {"volume": worst} | {name: float(abs(b / max(a, 1e-9) - 1)) for name, (a, b) in totals.items()}


def _hourly(volume: np.ndarray) -> np.ndarray:
    """Volume of each hour over all markets, mean over paths, which come first; hours second [USD]."""
    return volume.sum(axis=tuple(range(2, volume.ndim)), dtype=np.float64).mean(axis=0)


def twins(given: Given, threads: int) -> dict[str, Twin]:
    """Those that can be had here, by name, ready to be timed.

    Args:
        given: Their input.
        threads: That each of them may use.
    """
    made = {name: make(given, threads) for name, make in _MAKERS.items()}
    return {name: Twin(name, run) for name, run in made.items() if run is not None}


def _cpp(given: Given, threads: int) -> Callable[[], Answer] | None:
    """Built for the sizes of its input, which is written to a file; none where no compiler builds it."""
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="liqstress-"))
    _, venues, assets, _ = given.shape
    sizes = [f"-DVENUES={venues}", f"-DASSETS={assets}", f"-DENTRIES={given.rows.shape[3]}"]
    flags = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-Wno-psabi", f"-I{VECTORS}", *sizes]
    source, binary = SOURCES / "step_twin.cpp", folder / "step_twin"
    if subprocess.run([compiler, *flags, str(source), "-o", str(binary)], capture_output=True).returncode:
        shutil.rmtree(folder)
        return None
    _write(folder / "given.bin", given)
    run = functools.partial(_run, folder, threads, (len(SUMS), *given.shape))
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _run(folder: Path, threads: int, shape: tuple[int, ...]) -> Answer:
    call = [folder / "step_twin", folder / "given.bin", folder / "said.bin", str(threads)]
    seconds = float(subprocess.run(call, check=True, capture_output=True).stdout)
    sums = np.fromfile(folder / "said.bin", np.float32).reshape(shape)
    return seconds, dict(zip(SUMS, sums, strict=True))


def _write(file: Path, given: Given) -> None:
    """Sizes, then everything in its order."""
    steps, assets, paths = given.log.shape
    if paths % 16:
        raise ValueError(f"expected a multiple of 16 paths, and not {paths}")
    sizes = given.adv.shape[0], assets, given.rows.shape[3], paths, steps, given.rows.shape[4]
    with file.open("wb") as out:
        for table in (sizes, *given):
            np.asarray(table, None if isinstance(table, np.ndarray | np.generic) else np.int32).tofile(out)


def _numba(given: Given, threads: int) -> Callable[[], Answer] | None:
    """None where numba is not installed."""
    return None if importlib.util.find_spec("numba") is None else _python("step_numba.py", given, threads)


def _python(source: str, given: Given, threads: int) -> Callable[[], Answer]:
    return functools.partial(_module(SOURCES / source).run, given, threads)


@functools.cache
def _module(source: Path) -> ModuleType:
    """A file as a module; once, as what numba compiles is kept in it."""
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MAKERS = {"cpp": _cpp, "numba": _numba, "numpy": functools.partial(_python, "step_numpy.py")}
