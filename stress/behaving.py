"""What is not forced as tables for the kernels, and the fresh accounts of a cohort."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from stress_kernels.behaviour import Behaviour, Deleveraging, Inflow, Makers, Spike
from stress_kernels.ladder import Ladders
from stress_kernels.pytree import host

from stress.behaviour import AfterSpike
from stress.behaviour import Inflow as InflowRule
from stress.book import Schedule
from stress.config import Run
from stress.portfolio import Positions
from stress.recovery import OpenInterest
from stress.spec import InputError
from stress.triggers import maintenance

Array = NDArray[np.float64]
_CUSHION = 0.0015
"""Accounts whose equity is within this share of notional of maintenance are not opened, as in the populations."""


def behaviour(run: Run, fresh: Ladders | None) -> Behaviour | None:
    """What a run's config says of behaviour.

    Args:
        run: The config.
        fresh: Ladders of a cohort, where there is an inflow.
    """
    rules = run.behaviour
    if rules is None or (rules.makers_leave is None and rules.deleveraging is None and fresh is None):
        return None
    makers = holders = inflow = None
    if (leave := rules.makers_leave) is not None:
        makers = Makers(_spike(run, leave, leave.return_minutes), host(leave.share, run.dtype))
    if (close := rules.deleveraging) is not None:
        share = 1 - (1 - close.per_hour) ** (run.step_seconds / 3600)
        holders = Deleveraging(_spike(run, close, close.calm_minutes), host(share, run.dtype))
    if rules.inflow is not None and fresh is not None:
        inflow = Inflow(fresh, every=rules.inflow.every(run.step_seconds), cohorts=rules.inflow.cohorts)
    return Behaviour(makers, holders, inflow)


def _spike(run: Run, rule: AfterSpike, lasting_minutes: float) -> Spike:
    sigma = np.array([asset.daily_volatility for asset in run.assets.values()])
    return Spike(
        move=host(rule.move * sigma, run.dtype),
        lasting=host(lasting_minutes * 60 / run.step_seconds, run.dtype),
        steps=max(1, round(rule.minutes * 60 / run.step_seconds)),
    )


def fresh_positions(
    run: Run, held: Positions, schedules: Mapping[tuple[int, int], Schedule], start: Array
) -> Positions | None:
    """The accounts of a cohort, as if opened at the start; nothing without an inflow.

    Args:
        run: The config.
        held: Accounts with one position at the start, of which the inflow is a share.
        schedules: Rules of every listed market, by venue and asset.
        start: Index price of each asset [USD].

    Raises:
        InputError: There are no accounts with one position, or no leverage leaves room above maintenance.
    """
    rules = run.behaviour
    if rules is None or (rules.deleveraging is None and rules.inflow is None):
        return None
    if not len(held):
        name = "deleveraging" if rules.inflow is None else "inflow"
        raise InputError(
            f"behaviour.{name} is of accounts with one linear position, backed by USD, at venues without a vault, "
            "expected any such account. Add some, or leave it out."
        )
    if (rule := rules.inflow) is None:
        return None
    share = rule.per_day * rule.held_hours / 24 / rule.cohorts
    return _cohort(run, rule, "inflow", share, rule.long_share, held, schedules, start)


def returning_positions(
    run: Run, held: Positions, schedules: Mapping[tuple[int, int], Schedule], start: Array
) -> Positions | None:
    """Accounts that stand for all of those at the start when positions come back, as if opened then; nothing where none
    do. Arguments as in `fresh_positions`."""
    rule = None if run.behaviour is None or run.behaviour.recovery is None else run.behaviour.recovery.open_interest
    return None if rule is None else _cohort(run, rule, "recovery.open_interest", 1.0, None, held, schedules, start)


def _cohort(
    run: Run,
    rule: InflowRule | OpenInterest,
    name: str,
    share: float,
    long_share: float | None,
    held: Positions,
    schedules: Mapping[tuple[int, int], Schedule],
    start: Array,
) -> Positions:
    """Accounts that together hold a share of what each market side held at the start, or of either side's part."""
    notional = np.zeros((len(run.venues), len(run.assets), 2))
    usd = np.abs(held.quantity) * held.count * start[held.asset]
    np.add.at(notional, (held.venue, held.asset, (held.quantity < 0).astype(int)), usd)
    if long_share is not None:
        notional = notional.sum(axis=2, keepdims=True) * [long_share, 1 - long_share]
    parts = []
    for v, a, s in np.argwhere(notional > 0):
        schedule = schedules[int(v), int(a)]
        leverage = _leverages(rule, schedule)
        if not len(leverage):
            raise InputError(
                f"behaviour.{name}.least_leverage is {rule.least_leverage:g}, expected less in "
                f"{list(run.assets)[a]} at '{list(run.venues)[v]}', where maintenance of an account of "
                f"{rule.account_usd:g} USD leaves no room. Lower it."
            )
        of = np.ones(len(leverage))
        quantity = (-1 if s else 1) * rule.account_usd / start[a] * of
        count = share * notional[v, a, s] / rule.account_usd / len(leverage) * of
        parts.append((v * of, a * of, quantity, start[a] * of, rule.account_usd / leverage, count))
    venue, asset, *numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Positions(venue.astype(np.int32), asset.astype(np.int32), *numbers)


def _leverages(rule: InflowRule | OpenInterest, schedule: Schedule) -> Array:
    """Leverages that stand for equal notional, without those that maintenance leaves no room for."""
    quantile = (np.arange(rule.levels) + 0.5) / rule.levels
    leverage = rule.least_leverage * (rule.most_leverage / rule.least_leverage) ** quantile
    size = np.full(rule.levels, rule.account_usd)
    required = maintenance(size, schedule.rate, schedule.deduction) + schedule.counted_fee * size
    return leverage[size / leverage - required > _CUSHION * size]
