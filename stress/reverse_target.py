"""What a reverse stress test asks for, and what it changes before: targets and levers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stress.config import Run
from stress.risk import usd
from stress.spec import InputError

Array = NDArray[np.float64]
Measured = Mapping[str, Array]


@dataclass(frozen=True)
class Levers:
    """What a run is changed by before a shock hits it."""

    depth: float = 1.0
    """How many times thinner than otherwise all books are [1]."""
    fund: float = 1.0
    """Money of all insurance funds over what it is [1]."""
    concentration: float = 0.0
    """Share of each venue's long accounts that are one account in each market [1]."""


AS_IS = Levers()
"""The run is not changed before."""


@dataclass(frozen=True)
class Target:
    """What a shock is to bring about."""

    kind: str
    """`exhausts`, `adl` or `volume`."""
    name: str = ""
    """Pool or venue."""
    place: int = 0
    """Its number."""
    usd: float = 0.0
    """Volume of an hour."""
    pools: tuple[int, ...] = ()
    """Those of the venue."""
    pool_names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    """Fall of each of them that starts ADL [1]; infinite where none does."""

    def margins(self, found: Measured, cash: Array) -> tuple[Array, Array]:
        """How far beyond the edge paths are, by what may bring it about, and what each grows with, (cause p) twice.

        A cause has come where its margin is at or above 0.

        Args:
            found: Of `measures`, or their slopes.
            cash: What pools have at the start [USD].
        """
        if self.kind == "volume":
            growth = found["volume"] / self.usd
            return growth - 1, growth
        low, unit = found["fund_low"], np.maximum(cash, 1.0)[:, None]
        if self.kind == "exhausts":
            growth = -low[[self.place]] / unit[self.place]
            return growth + 1 / unit[self.place], growth
        mine = list(self.pools)
        growth = np.concatenate([-low[mine] / unit[mine], found["adl_volume"][[self.place]] / 1e6])
        at = np.concatenate([1 - np.minimum(np.array(self.shares), 1 - 1 / cash[mine]), [-1e-6]])
        return growth + at[:, None], growth


def target_of(run: Run, exhausts: str | None = None, adl: str | None = None, volume: float | None = None) -> Target:
    """What a shock is to bring about, from names of a run: exactly one of the three.

    Args:
        run: The run.
        exhausts: Pool, as VENUE/NAME, whose equity falls to zero.
        adl: Venue at which ADL starts: a fund is exhausted, or falls by the share that starts it, or layers leave
            something for winners.
        volume: Forced closings of an hour over all venues and assets [USD].

    Raises:
        InputError: None or several are given, or a name is not the run's.
    """
    given = {"exhausts": exhausts, "adl": adl, "volume": volume}
    asked = [f"--{name}" for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise InputError(
            f"the target is {' and '.join(asked) or 'missing'}, expected exactly one of --exhausts VENUE/NAME, "
            "--adl VENUE and --volume USD. Give one."
        )
    if volume is not None:
        if not 0 < volume < np.inf:
            raise InputError(f"--volume is {volume:g}, expected a number above 0. Give USD an hour, such as 601e6.")
        return Target("volume", usd=volume)
    pools = [(venue, pool) for venue in run.venues for pool in run.venues[venue].pools]
    names = [f"{venue}/{pool.name}" for venue, pool in pools]
    if exhausts is not None:
        if exhausts not in names:
            raise InputError(
                f"--exhausts is {exhausts!r}, expected a fund of the run ({', '.join(names)}). Correct it."
            )
        return Target("exhausts", exhausts, names.index(exhausts))
    if adl not in run.venues:
        raise InputError(f"--adl is {adl!r}, expected a venue of the run ({', '.join(run.venues)}). Correct it.")
    share, mine = run.venues[adl].adl.drawdown_share, [i for i, (venue, _) in enumerate(pools) if venue == adl]
    return Target(
        kind="adl",
        name=adl,
        place=list(run.venues).index(adl),
        pools=tuple(mine),
        pool_names=tuple(names[i] for i in mine),
        shares=(np.inf if share is None else share,) * len(mine),
    )


def check_levers(levers: Levers) -> None:
    """`InputError` where a lever makes no sense."""
    if not 1 <= levers.depth < np.inf:
        raise InputError(f"depth is {levers.depth:g}, expected a number of at least 1. Leave it out for usual books.")
    if not 0 < levers.fund < np.inf:
        raise InputError(f"fund is {levers.fund:g}, expected a number above 0. Leave it out for the funds as they are.")
    if not 0 <= levers.concentration < 1:
        raise InputError(f"concentration is {levers.concentration:g}, expected a share from 0 to below 1. Correct it.")


def value_of(target: Target, found: Measured, cause: int) -> tuple[str, float]:
    """A cause of a target in words, and how much of it there is on the first path [USD]."""
    if target.kind == "volume":
        return "hourly volume", float(found["volume"].max())
    if target.kind == "exhausts":
        return f"lowest equity of {target.name}", float(found["fund_low"][target.place, 0])
    if cause == len(target.pools):
        return f"volume of ADL at {target.name}", float(found["adl_volume"][target.place, 0])
    return f"lowest equity of {target.pool_names[cause]}", float(found["fund_low"][target.pools[cause], 0])


def words_of(target: Target) -> str:
    """What is asked, as the beginning of a sentence."""
    match target.kind:
        case "volume":
            return f"{usd(target.usd)} in an hour"
        case "exhausts":
            return f"exhaustion of {target.name}"
        case _:
            return f"ADL at {target.name}"


def so_far(target: Target, found: Measured, cash: Array) -> str:
    """How far the first path got."""
    if target.kind == "volume":
        return f"an hour of {usd(float(found['volume'].max()))}"
    mine = [target.place] if target.kind == "exhausts" else list(target.pools)
    return "funds with " + ", ".join(f"{usd(float(found['fund_low'][f, 0]))} of {usd(float(cash[f]))}" for f in mine)
