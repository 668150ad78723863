"""Forced orders of accounts: at which price, how much, staged as the venue's rule says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stress.triggers import bankruptcy_price, deductions, trigger_price
from stress.venues import FractionStaging, RestoreStaging, Staging, TierStaging

Array = NDArray[np.float64]

FLOOR_TOLERANCE = 1e-3
"""A notional this little above a floor counts as at it [1]."""
MOST_CLOSINGS = 24
"""Staged closings of one account; what is open then closes whole."""


@dataclass(frozen=True)
class Schedule:
    """Maintenance and staging of one market."""

    floor: Array
    rate: Array
    fee: float
    """Fee on what is closed [1]."""
    fee_in_trigger: bool
    staging: Staging
    pause_steps: int = 0
    """Steps after a partial close until the account is tested again; for accounts on cross margin."""
    riskiest_first: bool = False
    """Of several positions only the one that requires most is closed."""
    margin_times: float = 1.0
    """Multiple of maintenance that the venue asks for while its breaker widens margins [1]."""

    @property
    def counted_fee(self) -> float:
        """Fee where the trigger counts it, else 0 [1]."""
        return self.fee if self.fee_in_trigger else 0.0

    @property
    def deduction(self) -> Array:
        """D_j [USD]."""
        return deductions(self.floor, self.rate)


@dataclass(frozen=True)
class Closings:
    """Forced orders of one market side, each at its trigger; coins are worth 1 USD at the start."""

    trigger: Array
    quantity: Array
    """Coins over all copies."""
    value: Array
    """Bankruptcy price; of a partial close, the trigger [USD per coin]."""
    ratio: Array
    """Bankruptcy price of the account at that time over the trigger [1]."""
    partial: NDArray[np.bool_]
    accounts: Array
    """Accounts that end with it."""
    entry: Array
    stratum: NDArray[np.int64]
    """Margin class of a stop order; 0 of others, which are not classed yet."""
    owner: NDArray[np.int64]
    """Row of the account in its market side; negative where it is none of the run's."""

    def and_those(self, others: Closings) -> Closings:
        """These and others."""
        both = ((getattr(self, field.name), getattr(others, field.name)) for field in fields(self))
        return Closings(*(np.concatenate(pair) for pair in both))

    def of_copies(self, share: Array) -> Closings:
        """Those of a share of the copies of every account, shape (owner); of an account without any, none."""
        copies = share[self.owner]
        some = replace(self, quantity=self.quantity * copies, accounts=self.accounts * copies)
        return Closings(*(getattr(some, field.name)[copies > 0] for field in fields(some)))


def closings(cash: Array, quantity: Array, entry: Array, count: Array, schedule: Schedule) -> Closings:
    """All forced orders of accounts of one sign, each closing assumed to execute at its trigger.

    A staged account is cut as the venue's rule says, keeps its equity but for the fee, and meets its next trigger with
    what is left. One whose equity does not outlast the fee of the cut would close in the next round and closes whole.
    By `tiers`, longs move down the brackets; a short's notional grows back on the way to its next trigger, so it is
    cut to the same floor again, in steps that shrink quickly. By `fraction`, an account that the cut leaves past its
    next trigger fails the next test and closes whole; any other begins anew. Nobody pauses between two closings.

    Args:
        cash: margin - q entry [USD], shape (n).
        quantity: Signed coins, all of one sign, shape (n).
        entry: Entry price [USD], shape (n).
        count: Copies of each account, shape (n).
        schedule: The market's brackets and staging.
    """
    rate, deduction, counted = schedule.rate, schedule.deduction, schedule.counted_fee
    owner, before = np.arange(len(cash)), np.full(len(cash), np.nan)
    parts: list[tuple[NDArray[Any], ...]] = []
    for last in [False] * (MOST_CLOSINGS - 1) + [True]:
        trigger = trigger_price(cash, quantity, rate, deduction, counted)
        price = bankruptcy_price(cash, quantity)
        size, sign = np.abs(quantity), np.sign(quantity)
        # What is left after a cut may be past its trigger at once.
        failed = sign * trigger >= sign * before
        trigger = np.where(failed, before, trigger)
        reachable = trigger > 0
        safe = np.where(reachable, trigger, 1.0)
        equity = sign * size * (trigger - price)
        left = np.where(reachable, _target(size * safe, equity, failed, schedule) / safe, 0.0)
        fee = schedule.fee * (size - left) * trigger
        cut = (left > 0) & (left < size) & (equity > fee) & (not last)
        closed = np.where(cut, size - left, size)
        parts.append(
            (trigger, closed * count, np.where(cut, trigger, price), np.where(reachable, price / safe, 1.0),
             cut, np.where(cut, 0.0, count), entry, np.zeros_like(owner), owner)
        )  # fmt: skip
        if not cut.any():
            break
        cash = (cash + sign * closed * trigger - fee)[cut]
        quantity, entry, count, owner, before = (
            (sign * left)[cut], entry[cut], count[cut], owner[cut], trigger[cut]
        )  # fmt: skip
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Closings(*columns)


def _target(notional: Array, equity: Array, failed: NDArray[np.bool_], schedule: Schedule) -> Array:
    """Notional to which an account is cut; 0 where it is closed whole [USD].

    Args:
        notional: At the trigger [USD].
        equity: At the trigger [USD].
        failed: Whether the account was cut before and has not passed a test since.
        schedule: The market's brackets and staging.
    """
    match schedule.staging:
        case TierStaging() as rule:
            floors = schedule.floor[np.isfinite(schedule.floor)]
            tier = np.searchsorted(floors * (1 + FLOOR_TOLERANCE), notional, side="left") - 1
            tier = np.maximum(tier, 0)
            lower = np.maximum(tier - (rule.down - 1), 0)
            return np.where(tier < rule.whole_below, 0.0, floors[lower])
        case FractionStaging() as rule:
            return np.where(failed | (notional <= rule.above_usd), 0.0, (1 - rule.share) * notional)
        case RestoreStaging() as rule:
            # target (rate_j n - D_j + fee n) <= E in every tier
            most = (equity[:, None] / rule.target + schedule.deduction) / (schedule.rate + schedule.counted_fee)
            return np.min(most, axis=1)
        case _:
            return np.zeros_like(notional)
