"""From the behaviour in a run's config to the slow twin's inputs, minute by minute and account by account."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stress.config import Run

from .twin import Accounts
from .twin_behaviour import Cohorts


def moods(run: Run, log_index: np.ndarray) -> dict[str, np.ndarray]:
    """Makers that are absent and what holders close, in every step of one path [step, A].

    Args:
        run: The config.
        log_index: Exogenous, after each step [step, A].
    """
    found: dict[str, np.ndarray] = {}
    rules = run.behaviour
    if rules is None:
        return found
    sigma = np.array([asset.daily_volatility for asset in run.assets.values()])
    rule: Any
    for name, rule in (("absent", rules.makers_leave), ("closing", rules.deleveraging)):
        if rule is None:
            continue
        back = round(rule.minutes * 60 / run.step_seconds)
        values = np.zeros_like(log_index)
        for a in range(log_index.shape[1]):
            line, last = np.append(0.0, log_index[:, a]), None
            for step in range(len(log_index)):
                if abs(line[step + 1] - line[max(0, step + 1 - back)]) >= rule.move * sigma[a]:
                    last = step
                minutes = np.inf if last is None else (step - last) * run.step_seconds / 60
                if name == "absent":
                    values[step, a] = rule.share * max(0.0, 1 - minutes / rule.return_minutes)
                elif minutes < rule.calm_minutes:
                    values[step, a] = 1 - (1 - rule.per_hour) ** (run.step_seconds / 3600)
        found[name] = values
    return found


def with_cohorts(run: Run, accounts: Accounts, start_price: np.ndarray) -> tuple[Accounts, Cohorts | None]:
    """The accounts of the start and those of all cohorts that a run opens, a row for each leverage and opening."""
    rule = None if run.behaviour is None else run.behaviour.inflow
    if rule is None:
        return accounts, None
    every = round(rule.held_hours * 3600 / rule.cohorts / run.step_seconds)
    openings = run.horizon_hours * 3600 // run.step_seconds // every
    usd = accounts.count[:, None] * accounts.quantity * start_price
    rows = []
    for v in range(len(run.venues)):
        here = accounts.venue == v
        for a in range(len(start_price)):
            sides = [np.maximum(sign * usd[here, a], 0).sum() for sign in (1, -1)]
            if rule.long_share is not None:
                sides = [sum(sides) * rule.long_share, sum(sides) * (1 - rule.long_share)]
            for sign, held in zip((1, -1), sides, strict=True):
                if held == 0:
                    continue
                opened = rule.per_day * every * run.step_seconds / 86400 * held
                for turn in range(1, openings + 1):
                    for i in range(rule.levels):
                        part = (i + 0.5) / rule.levels
                        leverage = rule.least_leverage ** (1 - part) * rule.most_leverage**part
                        copies = opened / rule.levels / rule.account_usd
                        rows.append(
                            (v, a, sign * rule.account_usd / start_price[a], rule.account_usd / leverage, copies, turn)
                        )
    venue, asset, coins, margin, count, turn = np.array(rows).T
    legs = coins[:, None] * (np.arange(len(start_price)) == asset[:, None])
    before = len(accounts.count)
    everyone = Accounts(
        venue=np.append(accounts.venue, venue.astype(int)),
        quantity=np.concatenate([accounts.quantity, np.zeros_like(legs)]),
        entry=np.concatenate([accounts.entry, np.zeros_like(legs)]),
        cash=np.append(accounts.cash, np.zeros(len(turn))),
        coins=np.concatenate([accounts.coins, np.zeros_like(legs)]),
        count=np.append(accounts.count, count),
    )
    none = np.zeros((before, len(start_price)))
    cohorts = Cohorts(
        turn=np.append(np.zeros(before, int), turn.astype(int)),
        quantity=np.concatenate([none, legs]),
        margin=np.append(np.zeros(before), margin),
        every=every,
        places=rule.cohorts,
    )
    return everyone, cohorts


def fresh(cohorts: Cohorts | None) -> Cohorts | None:
    """The cohorts of another path, none of which is open."""
    return None if cohorts is None else replace(cohorts, there={})
