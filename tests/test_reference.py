"""The validation table: its cases are what they say, its figures are read off right, and a wrong engine fails it."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference.twin as slow
from reference.bridge import log_returns, twin_accounts, twin_world
from rich.console import Console

from stress import programs
from stress.build import build
from stress.config import load_config
from stress.portfolio import Positions
from stress.published import CASES, Case, Times, one_jump
from stress.reference import DEFAULTS, Row, configure, print_table, run_case, table
from stress.run import run, simulate_in_memory
from stress.spec import InputError

BY_NAME = {case.name: case for case in CASES}
NINE = "BTC -9 % in 12 min"
MINUTES = Path(__file__).parents[2] / "shared" / "data" / "prices_1m_spot_2021-05"


def small(name: str, rows: int = 50_000, **changes: Any) -> Case:
    """A case on fewer accounts, which give the same totals within a percent."""
    case = BY_NAME[name]
    return replace(case, changes={**case.changes, "portfolio.population.rows": rows, **changes})


def is_two_hours(case: Case) -> bool:
    """Whether a case shares the compiled program of the -9 % case."""
    keys = set(case.changes)
    return case.changes.get("chunk") == 16 and not keys & {"step_seconds", "rounds", "horizon_hours"}


def test_every_case_is_a_valid_config_that_differs_from_the_defaults(tmp_path: Path) -> None:
    plain = load_config(DEFAULTS)
    assert len(BY_NAME) == len(CASES)
    for case in CASES:
        changed = configure(case, DEFAULTS, tmp_path if case.needs_prices else None)
        assert changed.shock != plain.shock or changed.paths != plain.paths
        assert not changed.barrier_correction
        if not case.needs_prices:
            assert changed.assets == plain.assets
            assert changed.portfolio == plain.portfolio


def test_a_star_reaches_every_market_and_every_pool() -> None:
    plain = load_config(DEFAULTS)
    doubled = configure(BY_NAME["BTC -9 %: take bound doubled"], DEFAULTS)
    tenth = configure(BY_NAME["BTC -20 % in 3 min, funds of a tenth"], DEFAULTS)
    for name, venue in plain.venues.items():
        assert [p.equity_usd / 10 for p in venue.pools] == pytest.approx(
            [p.equity_usd for p in tenth.venues[name].pools]
        )
        for asset, market in venue.markets.items():
            assert doubled.venues[name].markets[asset].take_bound_bps == 2 * market.take_bound_bps
            assert doubled.venues[name].markets[asset].adv_usd == market.adv_usd


def test_a_change_of_something_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match=r"impact\.rhoo is not a known key"):
        configure(Case("misspelt", {"impact.rhoo": 0.3}, ()), DEFAULTS)


def test_the_crash_falls_to_its_low_in_a_straight_line_in_logs_and_others_by_beta() -> None:
    crash = configure(BY_NAME[NINE], DEFAULTS)
    low = np.log(0.91)
    assert crash.shock.kind == "prescribed"
    at = np.array([15.0, 21.0, 27.0, 60.0, 120.0])
    assert crash.shock.log_path("BTC", at) == pytest.approx([0, low / 2, low, np.log(0.96), np.log(0.96)])
    assert crash.shock.log_path("SOL", at) == pytest.approx(1.6 * crash.shock.log_path("BTC", at))


def test_one_jump_finds_the_share_of_days_that_a_poisson_variable_gives() -> None:
    case = small("days with one jump", 5_000, paths=512)
    share = one_jump(configure(case, DEFAULTS)).mean()
    # Exactly one jump, or two within the longest duration of one: 1/e, and about 1/(2e) x 2 x 11/1440 of the rest.
    expected = np.exp(-1) * (1 + 11 / 1440)
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 512)
    assert not one_jump(configure(small("days with one jump", 5_000, **{"shock.common.per_day": 1e-9}), DEFAULTS)).any()


def test_row_compares_with_the_mean_of_the_published_figures() -> None:
    row = Row("case", "total", "M USD", (90.0, 110.0), 114.9, held=True)
    assert row.ratio == pytest.approx(1.149)
    assert row.within
    assert not replace(row, ours=115.1).within
    assert not replace(row, ours=84.9).within


@pytest.fixture(scope="module")
def two_hours() -> list[Row]:
    """All cases of the commonest shape, on fewer accounts."""
    return table(cases=[small(case.name) for case in CASES if is_two_hours(case)])


def test_totals_agree_with_the_published_figures(two_hours: list[Row]) -> None:
    held = [row for row in two_hours if row.held]
    off = {row.case: row.ratio for row in held if not row.within}
    assert len(held) >= 20
    # There the two published populations differ by 16 % of their mean; the slow twin on our accounts agrees with us.
    assert set(off) <= {"BTC -5 % in 40 min"}
    assert all(0.8 < ratio < 1.2 for ratio in off.values())


def test_layers_add_up_to_the_total(two_hours: list[Row]) -> None:
    ours = {row.quantity: row.ours for row in two_hours if row.case == "BTC -12 % in 3 min"}
    assert sum(ours[layer] for layer in ("book", "auction", "takeover", "adl")) == pytest.approx(
        ours["total"], rel=1e-5
    )


def test_an_engine_with_a_wrong_impact_fails_the_table() -> None:
    wrong = small(NINE, 50_000, **{"impact.i_ref": 0.02})
    rows = run_case(wrong, configure(wrong, DEFAULTS))
    assert [row.within for row in rows if row.held] == [False]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("BTC -5 % in 40 min", 0.01), (NINE, 0.02), ("BTC -20 % in 3 min", 0.02)]
)
def test_totals_agree_with_the_slow_twin_on_the_same_accounts(name: str, tolerance: float) -> None:
    case = small(name, 20_000)
    config = configure(case, DEFAULTS)
    assert config.shock.kind == "prescribed"
    built = build(config)
    positions = positions_of(config, built.start_price)
    minutes = np.arange(1, 121.0)
    log = np.stack([config.shock.log_path(asset, minutes) for asset in config.assets], axis=1)
    out = slow.simulate(
        twin_world(config, positions, built.start_price), twin_accounts(positions, len(config.assets)), log_returns(log)
    )
    ours = run_case(case, config)[0].ours
    assert ours == pytest.approx(out["liquidation_volume"].sum() / 1e6, rel=tolerance)


def positions_of(config, start_price: np.ndarray) -> Positions:
    """The population of a run."""
    from reference.bridge import tiers

    volatility = np.array([asset.daily_volatility for asset in config.assets.values()])
    return config.portfolio.population.draw(
        list(config.venues), list(config.assets), start_price, volatility, *tiers(config)
    )


def test_in_memory_is_bit_for_bit_what_a_store_holds(tmp_path: Path) -> None:
    config = configure(small(NINE), DEFAULTS)
    stored, memory = run(config, tmp_path / "run.zarr"), simulate_in_memory(config)
    assert set(stored.data_vars) == set(memory.data_vars)
    for name in stored.data_vars:
        np.testing.assert_array_equal(stored[name].values, memory[name].values, err_msg=str(name))
        assert stored[name].dims == memory[name].dims


def test_runs_of_one_shape_share_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    exported = programs._exported
    monkeypatch.setattr(programs, "_exported", lambda *given: made.append("one") or exported(*given))
    table(cases=[small("BTC -9 %: rho 0.5"), small("BTC -9 %: mark = last"), small("BTC -5 % at once, no impact")])
    assert len(made) <= 1  # None, where a test before this one made it.


def test_replays_are_left_out_without_prices() -> None:
    replays = [case for case in CASES if case.needs_prices]
    assert len(replays) == 4
    assert table(cases=replays) == []


@pytest.mark.skipif(not MINUTES.is_dir(), reason="the minute prices of May 2021 are not beside the checkout")
def test_replay_of_may_2021() -> None:
    rows = table(prices=MINUTES, cases=[small(case.name) for case in CASES if case.needs_prices])
    assert all(row.within for row in rows)
    lows = [row for row in rows if row.quantity == "index low BTC"]
    assert [row.ours for row in lows] == pytest.approx([row.published[0] for row in lows], abs=0.3)


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        table(tmp_path / "reference.toml")


def test_what_is_printed() -> None:
    rows = [
        Row("BTC -5 %", "total", "M USD", (684.0, 804.0), 625.6, held=True),
        Row("BTC -5 %", "book", "M USD", (3897.0,), 3967.0, held=False),
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    print_table(rows, console)
    text = console.export_text()
    assert "684, 804" in text
    assert "0.84" in text
    assert "(yes)" in text
    assert "0 of 1 totals" in text


def test_times_multiplies_what_was_there() -> None:
    changed = configure(Case("half", {"impact.half_life_local_seconds": Times(0.5)}, ()), DEFAULTS)
    assert changed.impact.half_life_local_seconds == 300
