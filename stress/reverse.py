"""Reverse stress test: the most plausible move of all prices that exhausts a fund, starts ADL, or reaches a volume.

A move takes so many minutes from the start, straight in logs and in all assets at once, and stays. Of all moves that
reach the target in the engine, the one is found whose density under the run's shock model is largest; how, says
`stress.reverse_search`. How often the model goes there is said of the half-space beyond the move, into which likelihood
falls fastest: n . x >= n . move, n the slope of minus the log of the density. That is the chance of reaching the target
within a window as far as its edge is a plane there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from stress_kernels.simulate import path_keys

from stress.config import Run
from stress.devices import Devices, Kind, choose, precise
from stress.diffusions import Kou, Merton
from stress.intervals import Estimate, probability
from stress.overlays import DepthCollapse
from stress.plausible import law_of, return_period_years, standard_deviations
from stress.reverse_search import Engine, Likeliest, search, starting_directions
from stress.reverse_target import AS_IS, Levers, Target, check_levers, so_far, target_of, value_of, words_of
from stress.scenarios import Prescribed, Shock
from stress.shock import Grid, compile_shock
from stress.spec import InputError

Array = NDArray[np.float64]
Lever = Literal["depth", "fund", "concentration"]

DAYS = 8192
"""Days of the shock model that are simulated to see how often it goes as far."""
_TOGETHER = 1024
_WARM_TURNS = 4
"""Of the directions at each width, where the search begins from one of another lever."""


@dataclass(frozen=True)
class Reversed:
    """The most plausible move that reaches a target."""

    target: Target
    levers: Levers
    minutes: float
    move: Mapping[str, float]
    """Of each index against its start, at the end of the move [1]."""
    log_move: Array = field(repr=False)
    below: float
    """Multiple of the log move that was simulated too and does not reach the target [1]."""
    measure: str
    """What brings the target about: an hour's volume, a fund's lowest equity, or the volume of ADL."""
    reached: float
    """How much of it there is at the move [USD]."""
    smooth: float
    """The same in the engine with smooth triggers [USD]."""
    log_density: float
    """Of the move, over that of no move [log]."""
    distance: float
    """Mahalanobis distance of the move, jumps in the covariance [1]."""
    jumps: float
    """Expected number of jumps in the window, given the move; 0 where the model has none."""
    log_chance: float
    """Log of the model's chance that a window of these minutes goes as far in that direction."""
    years: float
    """Mean time between such windows."""
    per_day: Estimate | None
    """Chance that some window of a simulated day does; None where it was not asked for."""
    alignment: float
    """Cosine between the slopes of the density and of the target there: -1 at an optimum."""
    directions: Array = field(repr=False)
    """Directions to begin the next search with, (a p)."""

    def shock(self) -> Prescribed:
        """The move as a shock of a run."""
        return _prescribed(self.move, self.minutes)


class Reverse:
    """A run to be asked which shocks break it; its programs are compiled once."""

    def __init__(
        self, run: Run, *, minutes: float = 15, within: float = 0.6, under: Shock | None = None, device: Kind = "auto"
    ) -> None:
        """Read the files and build the tables.

        Args:
            run: Whose venues, accounts, funds, impact and overlays; its shock model judges likelihood.
            minutes: How long a move takes, in whole steps.
            within: Largest fall of an index that is tried [1]; a rise as large in logs.
            under: Another shock model to judge likelihood by.
            device: Where to compute.

        Raises:
            InputError: Something is wrong.
        """
        _check_window(run, minutes, within)
        self.run, self.minutes, self.most = run, minutes, -float(np.log1p(-within))
        self.model = run.shock if under is None else under
        self.law = law_of(self.model, list(run.assets), minutes)
        still = _prescribed(dict.fromkeys(run.assets, 0.0), minutes)
        self._calm = run.model_copy(update={"shock": still, "horizon_hours": max(1, -(-int(minutes) // 60))})
        self._devices: Devices = choose(device)
        precise(run.dtype)
        self._engines: dict[Levers, Engine] = {}

    def target(self, exhausts: str | None = None, adl: str | None = None, volume: float | None = None) -> Target:
        """What a shock is to bring about; see `target_of`."""
        return target_of(self.run, exhausts, adl, volume)

    def find(
        self, target: Target, levers: Levers = AS_IS, *, starts: Array | None = None, days: int = DAYS
    ) -> Reversed:
        """The most plausible move that reaches a target.

        Args:
            target: From `target_of`.
            levers: What the run is changed by before.
            starts: Directions to begin with; those of the law if absent (a s).
            days: Days of the model to simulate for `per_day`, none for 0.

        Raises:
            InputError: The target is reached without any move, or by none within the bounds.
        """
        engine = self._engine(levers)
        calm = engine.measured(np.zeros((engine.assets, 1)))
        if target.margins(calm, engine.cash)[0].max() >= 0:
            raise InputError(
                f"{words_of(target)} comes without any shock: {so_far(target, calm, engine.cash)}. Ask for more, or "
                "change the run."
            )
        begin, turns = (self._starts(), None) if starts is None else (starts, _WARM_TURNS)
        more = {} if turns is None else {"turns": turns}
        found = search(engine, target, self.law, begin, self.most, **more)
        if found is None:
            raise self._out_of_reach(engine, target, levers, begin)
        return self._told(engine, target, levers, found, days)

    def frontier(
        self,
        target: Target,
        lever: Lever,
        values: Sequence[float],
        levers: Levers = AS_IS,
        *,
        days: int = DAYS,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[float, Reversed | InputError]:
        """The same for several values of a lever, each search beginning where the last one ended.

        Returns:
            What was found by value; for a value at which there is nothing to find, why.
        """
        told, begin = {}, None
        for done, value in enumerate(values):
            if progress is not None:
                progress(done, len(values))
            try:
                found = self.find(target, replace(levers, **{lever: value}), starts=begin, days=days)
            except InputError as error:
                told[value] = error
            else:
                told[value], begin = found, np.concatenate([found.directions, self._starts()], axis=1)
        if progress is not None:
            progress(len(values), len(values))
        return told

    def _engine(self, levers: Levers) -> Engine:
        if levers not in self._engines:
            check_levers(levers)
            portfolio = self._calm.portfolio.model_copy(update={"concentration": levers.concentration})
            run = self._calm.model_copy(update={"portfolio": portfolio})
            steps = np.arange(1, run.horizon_hours * 3600 // run.step_seconds + 1)
            share = np.minimum(steps * run.step_seconds / 60 / self.minutes, 1.0)
            try:
                self._engines = {levers: Engine(run, self._devices, levers, share)}
            except InputError as error:
                if not levers.concentration:
                    raise
                raise InputError(
                    f"concentration is {levers.concentration:g}, expected less: one account with so much of a market "
                    f"is at its trigger from the start. {error}"
                ) from None
            self._engines[levers].prepare()
        return self._engines[levers]

    def _starts(self) -> Array:
        assets, covariance = list(self.run.assets), self.law.covariance()
        together = covariance.sum(axis=1)
        if isinstance(self.model, Merton | Kou):
            beta = np.array([self.model.common.beta.get(asset, 0.0) for asset in assets])
            together = beta if beta.any() else together
        return starting_directions(self.law, together)

    def _out_of_reach(self, engine: Engine, target: Target, levers: Levers, tried: Array) -> InputError:
        ends = engine.measured(self.most * tried / np.max(np.abs(tried), axis=0))
        worst = [int(np.argmax(target.margins(ends, engine.cash)[0].max(axis=0)))]
        far = so_far(target, {name: values[:, worst] for name, values in ends.items()}, engine.cash)
        return InputError(
            f"{words_of(target)} comes by no move of at most {100 * -np.expm1(-self.most):.3g} % in {self.minutes:g} "
            f"minutes, in {tried.shape[1]} directions tried; the worst gives {far}. Allow larger moves with --within, "
            "thinner books with --depth or smaller funds with --fund, or ask for less."
        )

    def _told(self, engine: Engine, target: Target, levers: Levers, found: Likeliest, days: int) -> Reversed:
        move, law = found.move[:, None], self.law
        density = law.density(np.concatenate([move, 0 * move], axis=1))
        normal = -density.gradient[:, 0] / np.abs(density.gradient[:, 0] @ found.move)
        level = float(normal @ found.move)
        log_chance = law.log_tail(normal, level)
        measured = engine.measured(move)
        cause = int(np.argmax(target.margins(measured, engine.cash)[0][:, 0] >= 0))
        measure, reached = value_of(target, measured, cause)
        return Reversed(
            target=target,
            levers=levers,
            minutes=self.minutes,
            move={asset: float(np.expm1(x)) for asset, x in zip(self.run.assets, found.move, strict=True)},
            log_move=found.move,
            below=found.below,
            measure=measure,
            reached=reached,
            smooth=value_of(target, engine.smoothed(move), cause)[1],
            log_density=float(density.log[0] - density.log[1]),
            distance=standard_deviations(law, found.move),
            jumps=float(density.jumps[0]),
            log_chance=log_chance,
            years=return_period_years(log_chance, self.minutes),
            per_day=self._per_day(normal, level, days) if days else None,
            alignment=found.alignment,
            directions=found.directions,
        )

    def _per_day(self, normal: Array, level: float, days: int) -> Estimate:
        """Chance that the model goes as far within some window of the length of the move in a day."""
        grid = Grid(list(self.run.assets), 24, self.run.step_seconds)
        window = max(1, round(self.minutes * 60 / self.run.step_seconds))
        shock = jax.device_put(compile_shock(self.model, grid), self._devices.all[0])
        program, given = _far_enough(_TOGETHER, window), (normal.astype(np.float32), np.float32(level))
        parts = [program(shock, np.uint32(self.run.seed), np.int32(i), *given) for i in range(0, days, _TOGETHER)]
        return probability(np.concatenate([np.asarray(part) for part in parts])[:days])


@functools.cache
def _far_enough(count: int, window: int) -> Callable[..., Any]:
    """Whether a shock's paths first, first + 1, ... go at least so far in a direction within some window of so many
    steps, compiled."""

    def hit(shock: Any, seed: Any, first: Any, normal: Any, level: Any) -> Any:
        log = shock.paths(path_keys(seed, first, count))
        along = jnp.concatenate([jnp.zeros((1, count), log.dtype), jnp.einsum("a,sap->sp", normal, log)])
        return jnp.any(along[window:] - along[:-window] >= level, axis=0)

    return jax.jit(hit)


def changed(run: Run, found: Reversed) -> Run:
    """The run that confirms what was found: its shock the move, its books, funds and accounts under the levers."""
    levers, hours = found.levers, max(1, -(-int(found.minutes) // 60))
    venues = {
        name: venue.model_copy(
            update={"pools": tuple(pool.model_copy(update={"equity_usd": pool.equity_usd * levers.fund})
                                   for pool in venue.pools)}
        )
        for name, venue in run.venues.items()
    }  # fmt: skip
    portfolio = run.portfolio.model_copy(update={"concentration": levers.concentration})
    overlays = run.overlays
    if levers.depth > 1:
        thin = DepthCollapse(kind="depth_collapse", times=levers.depth, start_minutes=0.0, minutes=60.0 * hours)
        overlays = (*overlays, thin)
    return run.model_copy(
        update={"shock": found.shock(), "horizon_hours": hours, "venues": venues, "portfolio": portfolio,
                "overlays": overlays}
    )  # fmt: skip


def _prescribed(move: Mapping[str, float], minutes: float) -> Prescribed:
    moves = {asset: (share,) for asset, share in move.items()}
    return Prescribed(kind="prescribed", minutes=(minutes,), moves=moves, source="reverse stress test")


def _check_window(run: Run, minutes: float, within: float) -> None:
    longest, steps = 60 * 24, minutes * 60 / run.step_seconds
    if not (0 < minutes <= longest) or steps != round(steps):
        raise InputError(
            f"--minutes is {minutes:g}, expected a time above 0 and of at most {longest} minutes in whole steps of "
            f"{run.step_seconds} s. Change it, or step_seconds."
        )
    if not 0 < within < 1:
        raise InputError(f"--within is {within:g}, expected a share between 0 and 1, such as 0.6. Correct it.")
