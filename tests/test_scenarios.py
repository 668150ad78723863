"""The library of scenarios: every file says what it is and where it is from, and fits the book of the quickstart."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, ROOT

from stress.prices import load_replay
from stress.recorded import Replay
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


HOURLY = DATA / "prices_1h_perp_2020_2024"


def test_the_replays_are_the_days_of_the_episodes(plan: Plan) -> None:
    """Windows of a day on all assets of the book, whose falls recorded prices have."""
    replays = read_suite(ROOT / "configs" / "replays.toml", prices=HOURLY)
    assert set(replays.scenarios) < set(plan.scenarios)
    for name, asset, low in (
        ("may_2021", "BTC", -0.33), ("december_2021", "BTC", -0.257), ("june_2022", "ETH", -0.19),
        ("november_2022", "SOL", -0.523), ("march_2024", "DOGE", -0.339),
    ):  # fmt: skip
        run = replays.cell(name, "present", 1)
        assert isinstance(run.shock, Replay) and run.shock.pin_index and run.shock.source
        year = name.partition("_")[2]
        assert run.shock.start.startswith(year)
        if HOURLY.is_dir():
            logs = load_replay(HOURLY, {}, list(run.assets), run.shock.start, 3600 * run.horizon_hours, 60)
            assert np.expm1(logs[asset] - logs[asset][0]).min() == pytest.approx(low, abs=0.002)
    if not HOURLY.is_dir():
        pytest.skip("hourly prices beside the repository are absent")
