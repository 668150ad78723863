"""The step by hand in C++, as a yardstick: built where there is a compiler, given our tables and prices, and checked.

It knows the order book alone; `book_alone` puts every other layer, and every limit, out of reach.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stress_kernels.ladder import Ladders
from stress_kernels.world import World

from stress.build import build
from stress.config import Run
from stress.devices import Devices
from stress.run import Simulation
from stress.spec import BLOCK, RunError

SOURCE = Path(__file__).resolve().parents[1] / "tests" / "bench" / "step_twin.cpp"
TOLERANCE = 1e-3
"""Largest difference of an hour's volume, all markets, mean over paths [1]."""
LEAST_VOLUME = 1e6
"""Hours with less are not compared [USD]."""
_SUMS = "volume", "remainder", "deficit", "surplus"
_VENUES = "binance", "bybit", "okx"
_ASSETS = "BTC", "ETH", "SOL", "XRP", "DOGE"


def book_alone() -> dict[str, Any]:
    """Changes to the reference config that put every limit but the order book's depth out of reach."""
    pool = {"name": "main", "equity_usd": 1e13, "takeover_multiple": 0, "source": "made up"}
    funding = {"interval_hours": 1000, "interest": 0, "clamp": 0, "cap": 0.01, "source": "made up"}
    market = {"take_bound_bps": 5000, "throughput_usd_per_minute": 1e15, "auction_usd_per_hour": 0}
    changes: dict[str, Any] = {}
    for venue in _VENUES:
        changes |= {f"venues.{venue}.pools": [pool], f"venues.{venue}.funding": funding}
        changes |= {f"venues.{venue}.adl.leftover": False}
        changes |= {f"venues.{venue}.markets.{asset}.{key}": x for asset in _ASSETS for key, x in market.items()}
    return changes


def leaves_out_nothing(config: Run) -> bool:
    """Whether a run's world is one that the twin knows whole."""
    built = build(config)
    return built.accounts is None and _left_out(built.world, built.ladders, built.shock.steps) is None


def _left_out(world: World, ladders: Ladders, steps: int) -> str | None:
    """What of a world the twin leaves out."""
    rules = world.rules
    venues = list(range(world.adv.shape[0]))
    found = {
        "exact triggers": bool(ladders.probes),
        "inverse contracts": world.inverse is not None,
        "vaults": world.vaults is not None,
        "transfers between pools": world.transfers is not None,
        "several pools at a venue": list(np.asarray(world.pool_venue)) != venues,
        "auction": bool(np.any(world.auction)),
        "takeover": bool(np.any(world.takeover_multiple)),
        "deleveraging": bool(np.any(rules.adl_leftover)),
        "funding": bool(np.min(rules.funding_every) <= steps),
    }
    return next((what for what, there in found.items() if there), None)


@dataclass(frozen=True)
class Twin:
    """The program, and the input of a chunk of paths."""

    binary: Path
    given: Path
    threads: int
    shape: tuple[int, ...]
    """Hours, venues, assets, paths."""

    @classmethod
    def of(cls, config: Run, devices: Devices) -> Twin | None:
        """Built for a run's first chunk, with the prices that our program draws; none where no compiler builds it."""
        compiler = shutil.which("g++")
        if compiler is None:
            return None
        import jax

        built = build(config)
        world, ladders = built.world, built.ladders
        (venues, assets), entries = world.adv.shape, ladders.rows.shape[3]
        folder = Path(tempfile.mkdtemp(prefix="liqstress-"))
        sizes = [f"-DVENUES={venues}", f"-DASSETS={assets}", f"-DENTRIES={entries}", f"-DBLOCK={BLOCK}"]
        flags = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-Wno-psabi", *sizes]
        binary, given = folder / "step_twin", folder / "given.bin"
        if subprocess.run([compiler, *flags, str(SOURCE), "-o", str(binary)], capture_output=True).returncode:
            shutil.rmtree(folder)
            return None
        log = np.moveaxis(jax.device_get(Simulation.of(config, devices, _prices).compute(0)), 0, -1)
        _write(given, log, ladders, world)
        hours = log.shape[0] // world.steps_per_hour
        twin = cls(binary, given, len(devices.all), (hours, venues, assets, log.shape[2]))
        weakref.finalize(twin, shutil.rmtree, folder, ignore_errors=True)
        return twin

    def seconds(self) -> float:
        """What it takes, input and output not counted."""
        return self._run()[0]

    def check(self, ours: Mapping[str, Any]) -> dict[str, float]:
        """Compare with what our program says of the same paths.

        Returns:
            The largest relative difference of an hour's volume, and those of the whole time's deficit and surplus.

        Raises:
            RunError: The volumes differ.
        """
        theirs, volume = self._run()[1], _hourly(np.asarray(ours["liquidation_volume"]))
        off = np.abs(_hourly(np.moveaxis(theirs["volume"], -1, 0)) / np.maximum(volume, 1e-9) - 1)
        compared = volume > LEAST_VOLUME
        worst = float(off[compared].max()) if compared.any() else np.inf
        if worst > TOLERANCE:
            raise RunError(f"{SOURCE.name}: an hour's volume differs from ours by {worst:.1e}; nothing was timed.")
        totals = {
            name: (np.asarray(ours[name]).sum(dtype=np.float64), theirs[name].sum(dtype=np.float64))
            for name in _SUMS[2:]
        }
        return {"volume": worst} | {name: float(abs(b / max(a, 1e-9) - 1)) for name, (a, b) in totals.items()}

    def _run(self) -> tuple[float, dict[str, np.ndarray]]:
        said = self.given.with_name("said.bin")
        call = [str(self.binary), str(self.given), str(said), str(self.threads)]
        seconds = float(subprocess.run(call, check=True, capture_output=True).stdout)
        sums = np.fromfile(said, np.float32).reshape(len(_SUMS), *self.shape)
        return seconds, dict(zip(_SUMS, sums, strict=True))


def _prices(keys: Any, world: Any, ladders: Any, shock: Any, accounts: Any) -> Any:
    """The log indices that a run draws."""
    return shock.paths(keys)


def _hourly(volume: np.ndarray) -> np.ndarray:
    """Volume of each hour over all markets, mean over paths, which come first; hours second [USD]."""
    return volume.sum(axis=tuple(range(2, volume.ndim)), dtype=np.float64).mean(axis=0)


def _write(file: Path, log: np.ndarray, ladders: Ladders, world: World) -> None:
    """The program's input.

    Raises:
        ValueError: The world has something that the program leaves out.
    """
    left_out = _left_out(world, ladders, log.shape[0])
    if left_out is not None or log.shape[2] % 16:
        raise ValueError(f"expected no {left_out or 'number of paths that is no multiple of 16'}")
    rules, impact = world.rules, world.impact
    (venues, assets), (entries, rungs) = world.adv.shape, ladders.rows.shape[3:5]
    head = (
        venues, assets, entries, log.shape[2], log.shape[0], world.steps_per_hour, world.rounds, rungs,
        ladders.cells, world.window, min(world.five_minutes, log.shape[0]),
    )  # fmt: skip
    numbers = (
        impact.delta, impact.rho, impact.decay_local, impact.decay_global, impact.index_weight, ladders.spread,
        impact.depth, impact.coefficient, impact.contagion, world.sigma, world.barrier_shift, world.adv,
        world.adv_global, world.take_bound, rules.fee, ladders.log_margin[:, :, :, 0, :, 0],
    )  # fmt: skip
    whole = rules.surplus_to_pool, rules.mark, rules.mark_window, ladders.partial[:, :, :, 0, :, 0]
    with file.open("wb") as out:
        for kind, tables in ((np.int32, (head,)), (np.float32, numbers), (np.int32, whole)):
            for table in tables:
                np.ascontiguousarray(table, kind).tofile(out)
        for table in (ladders.rows, log):
            np.ascontiguousarray(table, np.float32).tofile(out)
