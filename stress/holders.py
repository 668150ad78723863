"""What the behaviour of holders makes of the accounts of a run: cash added on margin calls; and who has none of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stress.behaviour import TopUps
from stress.collateral import AllAccounts
from stress.config import Run
from stress.spec import InputError

Array = NDArray[np.float64]


def topped_up(everyone: AllAccounts, rule: TopUps, price: Array) -> AllAccounts:
    """Accounts of one linear position and USD alone in two parts: those that answer no call, and those that do.

    Args:
        everyone: As they are.
        rule: Who adds how much.
        price: Index price of each asset at the start [USD], shape (A).
    """
    positions = everyone.ladder
    n, answers = len(positions), np.repeat([False, True], len(positions))
    copies = np.where(answers, rule.share, 1 - rule.share)
    place = np.tile(np.arange(n), 2)[copies > 0]
    answers, copies = answers[copies > 0], copies[copies > 0]
    rows = positions.where(place)
    equity = rows.margin + rows.quantity * (price[rows.asset] - rows.entry_price)
    more = np.where(answers, rule.multiple * np.maximum(equity, 0.0), 0.0)
    row = np.arange(n) if everyone.row is None else everyone.row
    return AllAccounts(
        replace(rows, margin=rows.margin + more, count=rows.count * copies),
        row[place],
        everyone.cross,
        None if everyone.single is None else everyone.single[place],
    )


def with_top_ups(run: Run, everyone: AllAccounts, price: Array) -> AllAccounts:
    """The accounts of a run with the cash that they will add.

    Raises:
        InputError: Stop-losses or top-ups are asked for, and no account can have any.
    """
    rules = run.behaviour
    if rules is None or len(everyone.ladder):
        return everyone if rules is None or rules.top_ups is None else topped_up(everyone, rules.top_ups, price)
    for name in ("stop_losses", "top_ups"):
        if getattr(rules, name) is not None:
            raise InputError(
                f"behaviour.{name} is given, expected none: all accounts are on cross margin with several positions or "
                "coins, or at a venue with a vault, and those have none. Leave it out."
            )
    return everyone


def check_margins(run: Run, everyone: AllAccounts) -> None:
    """`InputError` where margins may widen at a venue that has accounts which are followed one by one."""
    if everyone.cross is None:
        return
    for i, (name, venue) in enumerate(run.venues.items()):
        if venue.breaker is not None and venue.breaker.margin_times is not None and np.any(everyone.cross.venue == i):
            raise InputError(
                f"venues.{name}.breaker.margin_times is {venue.breaker.margin_times:g}, expected none: accounts on "
                "cross margin, and all at a venue with a vault, do not know wider margins. Leave it out, and the "
                "breaker stops liquidations."
            )
