"""Maintenance schedules against integrals and plain sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from scipy import integrate, stats

from stress.config import load_config
from stress.maintenance import ExpectedShortfall, Flat, Listed
from stress.policies import read_policy


@pytest.mark.parametrize("dof", [None, 3.0, 8.0])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_unit_shortfall_is_the_integral_of_the_tail(dof, level) -> None:
    law: Any = stats.norm() if dof is None else stats.t(dof, scale=np.sqrt((dof - 2) / dof))
    assert law.std() == pytest.approx(1)
    tail, _ = integrate.quad(lambda x: x * law.pdf(x), law.ppf(level), np.inf)
    spec = ExpectedShortfall(kind="expected_shortfall", level=level, degrees_of_freedom=dof)
    assert spec.unit_shortfall() == pytest.approx(tail / (1 - level), rel=1e-6)


def test_shortfall_maintenance_is_the_loss_until_closed_at_every_floor() -> None:
    floor, rate = np.array([0.0, 1e6, 1e7, 5e7, 2e8]), np.array([0.004, 0.005, 0.01, 0.02, 0.05])
    spec = ExpectedShortfall(kind="expected_shortfall", minutes=30.0, participation=0.2, scale=1.5)
    floors, rates = spec.schedule(floor, rate, adv=4e9, daily_volatility=0.03)
    np.testing.assert_array_equal(floors, floor)
    assert np.all(np.diff(rates) > 0)
    for notional in floor[1:]:
        hours = 0.5 + notional / (0.2 * 4e9 / 24)
        needed = notional * 1.5 * 0.03 * np.sqrt(hours / 24) * stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01
        held = np.sum(rates * np.diff(np.minimum(np.append(floor, np.inf), notional)))
        assert held == pytest.approx(needed)
    np.testing.assert_allclose(spec.schedule(floor, rate, 4e9, 0.06)[1], np.minimum(2 * rates, 0.5))
    bounded = ExpectedShortfall(kind="expected_shortfall", minimum=0.02, maximum=0.04)
    within = bounded.schedule(floor, rate, 4e9, 0.03)[1]
    assert within.min() == 0.02 and within.max() == 0.04


def test_flat_and_listed_schedules() -> None:
    floor, rate = np.array([0.0, 1e6]), np.array([0.004, 0.05])
    assert [x.tolist() for x in Flat(kind="flat", rate=0.01).schedule(floor, rate, 1.0, 1.0)] == [[0.0], [0.01]]
    assert Listed(kind="listed").schedule(floor, rate, 1.0, 1.0)[1] is rate


def test_a_run_uses_the_schedule_of_its_venue_and_the_volatility_of_its_asset() -> None:
    policy = read_policy(ROOT / "configs" / "policies" / "shortfall_maintenance.toml")
    run = load_config(ROOT / "configs" / "crash.toml", policies=[policy])
    floor, rate = run.brackets("binance", "BTC")
    assert floor.tolist() == [tier.floor_usd for tier in run.venues["binance"].markets["BTC"].tiers]
    # An hour of a day with 2.6 %, and a normal law's mean of its worst 1 %: 2.665.
    assert rate[0] == pytest.approx(0.026 / np.sqrt(24) * 2.665, rel=1e-2)
    assert run.brackets("binance", "SOL")[1][0] == pytest.approx(0.050 / np.sqrt(24) * 2.665, rel=1e-2)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"minimum is 0\.6, expected at most maximum = 0\.5"):
        ExpectedShortfall(kind="expected_shortfall", minimum=0.6)
