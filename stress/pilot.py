"""A pilot that finds tilts for a rare event, by the cross-entropy method (Rubinstein 1999), one for each way to it.

Paths are drawn from the tilts so far; those that come closest to the event, by its level, are the elite; and each way
in which they got there gets the tilt under which it is likeliest (`stress.tilting`). Levels rise from turn to turn
until a tenth of the paths reach the event itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.config import Run
from stress.devices import Devices, Kind, choose
from stress.intervals import Estimate, probability
from stress.programs import mesh_of
from stress.run import laid_out
from stress.sampled import sampled, with_room
from stress.sampling import Importance, check_sampling
from stress.shock import Grid
from stress.spec import InputError
from stress.tilting import MORE_JUMPS, MOST_WAYS, Did, first_guess, refitted, sources

if TYPE_CHECKING:
    from stress.shock import Shock

ELITE = 0.1
"""Share of a turn's paths that are the elite, unless more reach the event [1]."""
_ONCE_MORE = 2
"""Turns after the first in which the event is common, to come closer to what is best."""
_OTHER_SEED = 0x9E3779B9
"""Added to the run's seed, so that no path of the run is one of the pilot's."""

Progress = Callable[[int, int], None]
"""Called with turns done and turns in all."""


@dataclass(frozen=True)
class Event:
    """What is rare: a level of at least 1."""

    text: str
    pool: int | None = None
    """The fund that is exhausted: the level is what it has lost, over its equity at the start."""
    hour_usd: float = np.inf
    """Or liquidations of an hour [USD]: the level is the largest hour over this."""

    def fund_usd(self, run: Run) -> float:
        """Equity of the fund at the start [USD]."""
        assert self.pool is not None
        return [fund.equity_usd for venue in run.venues.values() for fund in venue.pools][self.pool]


@dataclass(frozen=True)
class Turn:
    """What came of one turn."""

    level: float
    """Lowest of the elite [1]."""
    reached: int
    """Paths with the event."""
    chance: Estimate
    ways: int
    """Tilts that paths were drawn from."""


@dataclass(frozen=True)
class Pilot:
    """Tilts, and how they were found."""

    sampling: Importance
    turns: list[Turn]


def event_of(run: Run, exhausts: str | None, volume: float | None) -> Event:
    """The event that a command line names; `InputError` where it is none or not one of the run's."""
    if (exhausts is None) == (volume is None):
        raise InputError(
            "expected either --exhausts FUND or --volume USD, which say what is rare. Give one of the two."
        )
    if volume is not None:
        if not 0 < volume < np.inf:
            raise InputError(
                f"--volume is {volume:g} USD, expected more than 0, for an hour. Give liquidations in USD."
            )
        return Event(f"an hour above {volume:g} USD", hour_usd=volume)
    funds = {f"{name}/{pool.name}": pool.equity_usd for name, venue in run.venues.items() for pool in venue.pools}
    if not funds.get(str(exhausts)):
        known = ", ".join(name for name, size in funds.items() if size > 0) or "none has"
        raise InputError(f"--exhausts is {exhausts!r}, expected a fund of the run that has money: {known}. Give one.")
    return Event(f"exhaustion of {exhausts}", pool=list(funds).index(str(exhausts)))


def pilot(
    run: Run,
    event: Event,
    *,
    paths: int = 2048,
    turns: int = 8,
    device: Kind = "auto",
    progress: Progress | None = None,
) -> Pilot:
    """Find tilts under which an event is common.

    Args:
        run: The run; its own sampling does not count.
        event: What is rare.
        paths: Of each turn, or a few more that fill up blocks.
        turns: At most.
        device: Where to compute.
        progress: Told of every turn that is done.

    Raises:
        InputError: The shock cannot be tilted, or the event is not reached.
    """
    plain = run.model_copy(update={"sampling": None})
    days = run.horizon_hours / 24
    guess, done = first_guess(run.shock, days, list(run.assets)), []
    try:
        check_sampling(guess, run.shock, list(run.assets), paths, run.chunk)
    except ValueError as error:
        raise InputError(f"{run.name}: {error}") from None
    draw = _Drawing(plain, choose(device), event)
    report = progress or (lambda done, turns: None)
    for turn in range(turns):
        report(turn, turns)
        did, weight, level, volume = draw(guess, turn, paths)
        reached = level >= 1
        elite = np.zeros(len(level), bool)
        elite[np.lexsort((volume, level))[-max(1, int(ELITE * len(level))) :]] = True
        enough = int(reached.sum()) >= int(elite.sum())
        elite = reached if enough else elite
        done.append(Turn(float(level[elite].min()), int(reached.sum()), probability(reached, weight), len(guess.tilts)))
        if enough and sum(one.level >= 1 for one in done) > _ONCE_MORE:
            break
        guess = refitted(run.shock, did, np.where(elite, weight, 0.0))
    report(turns, turns)
    if done[-1].level < 1:
        raise InputError(
            f"--turns is {turns}, after which a tenth of the paths come to {done[-1].level:.2g} of {event.text}, "
            "expected 1. Give more --turns or --paths; if it stays there, the shock as it is may never reach the event."
        )
    return Pilot(guess, done)


class _Drawing:
    """Draws the paths of a turn and looks how close they come; compiled once for all turns."""

    def __init__(self, run: Run, devices: Devices, event: Event) -> None:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        self.run, self.event, self.devices = run, event, devices
        self.built, world, self.size = laid_out(run, devices)
        everywhere = NamedSharding(mesh_of(devices), PartitionSpec())
        self.tables = jax.device_put((self.built.ladders, world, self.built.accounts), everywhere)
        most = max((jumps.per_day for jumps in sources(run.shock).values()), default=0.0)
        self.room = 1 + max(MOST_WAYS, len(sources(run.shock))), most * run.horizon_hours / 24 + MORE_JUMPS
        self.simulated = closest(devices)

    def __call__(self, sampling: Importance, turn: int, paths: int) -> tuple[Did, np.ndarray, np.ndarray, np.ndarray]:
        """What the shock did; likelihood ratios, levels and largest hours by path."""
        import jax
        import jax.numpy as jnp
        from stress_kernels.simulate import path_keys

        run, parts = self.run, []
        grid = Grid(list(run.assets), run.horizon_hours, run.step_seconds, run.dtype)
        shock = with_room(sampled(self.built.shock, run.shock, sampling, grid), *self.room)
        together = self.size * len(self.devices.all)
        blocks = -(-paths // together)
        for block in range(turn * blocks, (turn + 1) * blocks):
            seed, first = jnp.uint32((run.seed + _OTHER_SEED) % 2**32), jnp.int32(block * together)
            log, *facts = _program()(shock, path_keys(seed, first, together))
            parts.append(jax.device_get((facts, self.simulated(log, *self.tables))))
        facts, found = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)
        log_weight, ends, jumped = facts
        level, volume = levels(run, self.event, found)
        return _did(run, jumped, ends, len(level)), np.exp(np.asarray(log_weight, np.float64)), level, volume


def levels(run: Run, event: Event, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Levels and largest hours by path, of what `closest` found; the event has happened from 1 on."""
    volume = found["volume"].astype(np.float64)
    if event.pool is None:
        return volume / event.hour_usd, volume
    lost = 1 - found["low"][event.pool].astype(np.float64) / event.fund_usd(run)
    gone = found["exhausted"][event.pool]
    return np.where(gone, np.maximum(lost, 1.0), np.minimum(lost, 1 - 1e-9)), volume


@cache
def _program() -> Callable[..., Any]:
    import jax

    return jax.jit(_drawn)


def _drawn(shock: Shock, keys: Any) -> tuple[Any, ...]:
    """Log index, log likelihood ratios, where the diffusion ends, and jumps as (times, sizes); paths last."""
    import jax.numpy as jnp
    from stress_kernels.shocks import brownian, tilts

    log, log_weight = shock.drawn(keys)
    params, ends, jumped = shock.sampling, None, None
    assert isinstance(params, tilts.Tilts)
    if shock.brownian is not None:
        drift = jnp.take(params.drift, tilts.laws(params, keys), axis=0).T
        ends = brownian.paths(shock.brownian, keys, shock.steps)[-1] + shock.steps * drift
    if params.jumps is not None:
        drawn = tilts.draw(params, keys)
        jumped = drawn.times <= shock.steps, drawn.sizes
    return log, log_weight, ends, jumped


@cache
def closest(devices: Devices) -> Callable[..., Any]:
    """A program of log indices, ladders, world and accounts: lowest equity of funds, largest hour; paths last."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec
    from stress_kernels.simulate import simulate

    def found(log: Any, ladders: Any, world: Any, accounts: Any) -> dict[str, Any]:
        hourly = simulate(log, ladders, world, accounts)
        return {
            "low": jnp.min(hourly["fund_low"], axis=0),
            "exhausted": jnp.isfinite(hourly["fund_exhausted_hour"]),
            "volume": jnp.max(jnp.sum(hourly["liquidation_volume"], axis=(1, 2, 3)), axis=0),
        }

    same, along = PartitionSpec(), PartitionSpec(None, "paths")
    out = {"low": along, "exhausted": along, "volume": PartitionSpec("paths")}
    given = (PartitionSpec(None, None, "paths"), same, same, same)
    return jax.jit(jax.shard_map(found, mesh=mesh_of(devices), in_specs=given, out_specs=out, check_vma=False))


def _did(run: Run, jumped: Any, ends: np.ndarray | None, paths: int) -> Did:
    """What the shock did on so many paths, in 64 bits."""
    happened, sizes = (np.zeros((0, 0, paths)),) * 2 if jumped is None else jumped
    return Did(
        happened=np.asarray(happened, bool),
        sizes=np.asarray(sizes, np.float64),
        ends=None if ends is None else np.asarray(ends, np.float64),
        days=run.horizon_hours / 24,
        assets=list(run.assets),
    )
