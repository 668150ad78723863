"""What backs accounts and venues, as arrays: coins that are money, their volumes, vaults, transfers, breakers."""

from __future__ import annotations

from typing import Any

import numpy as np
from stress_kernels.pytree import host
from stress_kernels.world import Breakers, Transfers, Vaults

from stress.config import Run
from stress.cross import CrossAccounts, Currencies


def currencies(run: Run, cross: CrossAccounts | None) -> Currencies | None:
    """Haircuts and inverse markets; none where no account has coins and no contract is settled in them."""
    venues, assets = list(run.venues.values()), list(run.assets)
    inverse = np.array([[venue.inverse(asset) for asset in assets] for venue in venues])
    held = cross is not None and cross.coins is not None and bool(cross.coins.any())
    if not held and not inverse.any():
        return None
    haircut = np.array([[venue.haircuts.get(asset, 0.0) for asset in assets] for venue in venues])
    return Currencies(haircut, inverse)


def vaults(run: Run) -> Vaults | None:
    """The venues' backstop vaults; none where no venue has one."""
    specs = [venue.vault for venue in run.venues.values()]
    if not any(specs):
        return None
    per_step = run.step_seconds / 60

    def of_venue(values: Any) -> Any:
        return host(values, run.dtype)

    bounds = [(-np.inf, np.inf) if v is None or v.profit_bps is None else v.profit_bps for v in specs]
    rate = np.zeros((len(specs), len(run.assets)))
    for i, (name, vault) in enumerate(zip(run.venues, specs, strict=True)):
        for asset in run.markets(name):
            rate[i, list(run.assets).index(asset)] = 0.0 if vault is None else vault.unwind_usd_per_minute * per_step
    return Vaults(
        cash=of_venue([0.0 if v is None else v.equity_usd for v in specs]),
        capacity=of_venue([0.0 if v is None else v.capacity_usd for v in specs]),
        entry=of_venue([0.0 if v is None else v.entry_ratio for v in specs]),
        least=of_venue([low / 1e4 for low, _ in bounds]),
        most=of_venue([high / 1e4 for _, high in bounds]),
        unwind=of_venue(rate),
    )


def transfers(run: Run) -> Transfers | None:
    """Which pool tops up which, counted over all venues; none where none does."""
    source, floor = [], []
    for venue in run.venues.values():
        first, names = len(source), [pool.name for pool in venue.pools]
        for pool in venue.pools:
            source.append(-1 if pool.topped_up_by is None else first + names.index(pool.topped_up_by))
            floor.append(pool.floor_usd)
    if max(source) < 0:
        return None
    return Transfers(source=host(source, np.int32), floor=host(floor, run.dtype))


def breakers(run: Run) -> Breakers | None:
    """The venues' circuit breakers; none where no venue has one."""
    specs, dt = [venue.breaker for venue in run.venues.values()], run.step_seconds
    if not any(specs):
        return None
    widens = [b is not None and b.margin_times is not None for b in specs]
    steps = [1 if b is None else max(1, round(b.minutes * 60 / dt)) for b in specs]
    return Breakers(
        move=host([np.inf if b is None else b.move for b in specs], run.dtype),
        steps=host(steps, np.int32),
        pause=host([0 if b is None else np.ceil(b.pause_minutes * 60 / dt - 1e-9) for b in specs], np.int32),
        listed=host([[asset in venue.markets for asset in run.assets] for venue in run.venues.values()]),
        window=max(steps),
        widens=host(widens) if any(widens) else None,
    )


def volume(run: Run) -> list[float]:
    """Average daily volume of each asset over the venues that list it, or of its spot market where none does [USD]."""
    listed = {a: [v.markets[a].adv_usd for v in run.venues.values() if a in v.markets] for a in run.assets}
    return [sum(listed[name]) if listed[name] else asset.spot_adv_usd or np.inf for name, asset in run.assets.items()]
