"""The library of scenarios: every file says what it is and where it is from, and fits the book of the quickstart."""

import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from stress.scenarios import Prescribed
from stress.suite import Plan, read_suite

FOLDER = ROOT / "configs" / "scenarios"
EPISODES = sorted(file for file in FOLDER.glob("*.toml") if "shock" in tomllib.loads(file.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_suite(ROOT / "configs" / "episodes.toml")


def test_every_scenario_is_in_the_suite(plan: Plan) -> None:
    assert sorted(plan.scenarios) == [file.stem for file in EPISODES]
    assert len(EPISODES) >= 17


@pytest.mark.parametrize("file", EPISODES, ids=[file.stem for file in EPISODES])
def test_a_scenario_says_what_it_is_and_where_it_is_from(file: Path, plan: Plan) -> None:
    run = plan.cell(file.stem, plan.policies[0], 1)
    assert len(run.description) > 80
    assert isinstance(run.shock, Prescribed)
    assert run.shock.source
    assert all(overlay.source for overlay in run.overlays)
    assert set(run.shock.assets()) >= set(run.assets)
    assert run.shock.minutes[-1] <= 60 * run.horizon_hours


def test_falls_are_as_deep_as_the_episodes_were(plan: Plan) -> None:
    """Deepest closes of the days, as the press and price files have them."""
    for name, asset, low in (
        ("march_2020", "BTC", -0.46), ("may_2021", "BTC", -0.298), ("may_2021", "ETH", -0.43),
        ("december_2021", "BTC", -0.207), ("november_2022", "SOL", -0.413), ("march_2024", "BTC", -0.08),
    ):  # fmt: skip
        shock = plan.cell(name, plan.policies[0], 1).shock
        assert isinstance(shock, Prescribed)
        assert min(shock.moves[asset]) == pytest.approx(low, abs=0.002)
