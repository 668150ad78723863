"""The liquidation map against a sum over positions, and the reproduction number against the engine's own rounds."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import Command
from reference.small import market, run_of, venue
from stress_kernels.simulate import trace

from stress.build import build
from stress.config import Run
from stress.levels import TOGETHER, Levels, betas

TIERS = [{"floor_usd": 0, "rate": 0.01}, {"floor_usd": 50_000, "rate": 0.02}, {"floor_usd": 400_000, "rate": 0.05}]
HAIRCUT, FEE = 0.1, 0.0005
MOVES = (-0.3, -0.12, -0.05, -0.01, 0.0, 0.01, 0.04, 0.2)
HEADER = "venue,account,asset,quantity,entry_price,margin,mode,count"


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def written(folder: Path, rows: list[tuple], posted: list[tuple]) -> dict[str, str]:
    """Files of positions and collateral."""
    positions, collateral = folder / "positions.csv", folder / "collateral.csv"
    positions.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows), ""]))
    lines = ["venue,account,token,amount", *(",".join(map(str, row)) for row in posted), ""]
    collateral.write_text("\n".join(lines))
    return {"positions": str(positions), "collateral": str(collateral)}


# --------------------------------------------------------------------------------------------------- the map
def some_accounts() -> tuple[list[tuple], list[tuple]]:
    """Isolated positions, baskets on cross margin with coins, and inverse contracts; sound at the start."""
    rng = np.random.default_rng(1)
    rows, posted = [], []
    for i in range(60):
        place, asset, sign = ("whole", "counted")[i % 2], "AB"[i // 2 % 2], (1, -1)[i // 4 % 2]
        coins = sign * round(float(rng.lognormal(7, 1.5)), 3)
        entry = round(float(rng.uniform(97, 103)), 2)
        margin = round(abs(coins) * 100 * (0.06 + float(rng.exponential(0.08))) - coins * (100 - entry), 2)
        rows.append((place, f"i{i}", asset, coins, entry, margin, "isolated", 1 + i % 3))
    for i in range(40):
        coins = rng.normal(0, 2000, 2).round(3).tolist()
        rows += [("whole", f"c{i}", asset, q, 100, "", "cross", 2) for asset, q in zip("AB", coins, strict=True)]
        size = 100 * sum(map(abs, coins))
        posted += [("whole", f"c{i}", "USD", round(size * float(rng.uniform(-0.05, 0.1)), 2)),
                   ("whole", f"c{i}", "A", round(size * float(rng.uniform(0.12, 0.2)) / 100, 4))]  # fmt: skip
    for i in range(20):
        usd = (1, -1)[i % 2] * round(float(rng.lognormal(11, 1)))
        rows.append(("coins", f"n{i}", "B", usd, 95, "", "cross", 1))
        posted.append(("coins", f"n{i}", "B", round(abs(usd) / 100 * float(rng.uniform(0.2, 0.5)), 4)))
    return rows, posted


def maintenance(notional: float) -> float:
    """Bracket by bracket, each rate on the part of the notional that lies in it."""
    edges = [tier["floor_usd"] for tier in TIERS] + [np.inf]
    parts = [min(notional, high) - low if notional > low else 0.0 for low, high in itertools.pairwise(edges)]
    return sum(part * tier["rate"] for part, tier in zip(parts, TIERS, strict=True))


def brute_force(rows: list[tuple], posted: list[tuple], price: dict[str, float]) -> dict[tuple[str, str, str], float]:
    """USD closed by venue, asset and side where prices stand at `price`: account by account, from the definitions."""
    closed: dict[tuple[str, str, str], float] = {}
    for place, name in dict.fromkeys((row[0], row[1]) for row in rows):
        mine = [row for row in rows if row[:2] == (place, name)]
        equity = sum(float(row[5] or 0) for row in mine)
        for *_, token, amount in (row for row in posted if row[:2] == (place, name)):
            weight = 1 - HAIRCUT if place == "whole" else 1.0
            equity += amount if token == "USD" else weight * amount * price[token]
        required = 0.0
        for _, _, asset, quantity, entry, *_ in mine:
            if place == "coins":
                equity += quantity * (1 / entry - 1 / price[asset]) * price[asset]
                required += maintenance(abs(quantity))
            else:
                equity += quantity * (price[asset] - entry)
                notional = abs(quantity) * price[asset]
                required += maintenance(notional) + (FEE * notional if place == "counted" else 0.0)
        if equity > required:
            continue
        for _, _, asset, quantity, *_, count in mine:
            key = (place, asset, "long" if quantity > 0 else "short")
            usd = abs(quantity) * (1 if place == "coins" else price[asset])
            closed[key] = closed.get(key, 0.0) + usd * count
    return closed


def mapped(folder: Path, **changes: Any) -> Run:
    """Three venues of different rules; B moves 1.5 times as far as A."""
    linear = {asset: market(tiers=TIERS) for asset in "AB"}
    places = [
        venue("whole", linear, haircuts={"A": HAIRCUT}),
        venue("counted", linear, liquidation_fee_bps=1e4 * FEE, fee_in_trigger=True),
        venue("coins", {"B": market(tiers=TIERS, contract="inverse")}),
    ]
    files = written(folder, *some_accounts())
    falls = {"kind": "prescribed", "minutes": [1, 2], "moves": {"A": [0.01, -0.1]}, "beta": {"B": 1.5}, "beta_of": "A"}
    return run_of(places, {"A": 0.05, "B": 0.05}, None, portfolio=files, **({"shock": falls} | changes))


def test_the_map_is_a_sum_over_positions(tmp_path: Path) -> None:
    rows, posted = some_accounts()
    run = mapped(tmp_path)
    closed = Levels(run, device="cpu").liquidation_map(MOVES)["closed"]
    assert closed.dims == ("moved", "move", "venue", "asset", "side")
    for moved in ("A", "B", TOGETHER):
        for move in MOVES:
            up = {"A": move if moved != "B" else 0.0, "B": {"A": 0.0, "B": move}.get(moved, (1 + move) ** 1.5 - 1)}
            wanted = brute_force(rows, posted, {asset: 100 * (1 + x) for asset, x in up.items()})
            found = closed.sel(moved=moved, move=move)
            for place in ("whole", "counted", "coins"):
                for asset in "AB":
                    for side in ("long", "short"):
                        usd = float(found.sel(venue=place, asset=asset, side=side))
                        assert usd == pytest.approx(wanted.get((place, asset, side), 0.0), rel=1e-9), (moved, move)
    assert float(closed.sel(move=0).sum()) == 0
    alone = closed.sel(moved="A", asset="B", venue="whole")
    assert float(alone.sum()) > 0  # Baskets close their other leg too.
    assert all(closed.sel(moved=TOGETHER).sum("move").values[np.array([0, 1, 2]), [0, 0, 1]].min(axis=-1) > 0)


def test_triggers_are_not_moved_for_what_happens_between_steps(tmp_path: Path) -> None:
    wild = {"kind": "gbm", "daily_volatility": {"A": 0.5, "B": 0.5}, "correlation": 0.5}
    given = {"shock": wild, "step_seconds": 3600}
    plain, corrected = (
        Levels(mapped(tmp_path, barrier_correction=moved, **given), device="cpu").liquidation_map(MOVES)
        for moved in (False, True)
    )
    assert float(plain["closed"].sum()) > 0
    np.testing.assert_array_equal(plain["closed"], corrected["closed"])


def test_partial_closes_are_counted_as_far_as_their_triggers_lie(tmp_path: Path) -> None:
    """5,000 coins at 5 times leverage, cut to 50,000 USD at its trigger; what is left goes at its own, further on."""
    place = venue("one", {"A": market(tiers=TIERS)}, staging={"kind": "tiers", "down": 1, "whole_below": 1})
    rows = [("one", "a", "A", 3000, 100, 30_000, "isolated", 1)]
    run = run_of([place], {"A": 0.05}, None, portfolio={"positions": written(tmp_path, rows, [])["positions"]})
    # E = M: 30,000 + 3,000 (m - 100) = 0.02 x 3,000 m - 500
    trigger = (270_000 - 500) / (3000 * 0.98)
    left = 50_000 / trigger
    # Equity at the cut stays: left (m - trigger) + 0.02 x 3,000 trigger - 500 = 0.01 left m
    second = (left * trigger - (0.02 * 3000 * trigger - 500)) / (left * 0.99)
    moves = [trigger / 100 - 1 - 1e-6, second / 100 - 1 + 1e-6, second / 100 - 1 - 1e-6]
    closed = Levels(run, device="cpu").liquidation_map(moves)["closed"].sel(moved="A", venue="one", side="long")
    cut = 3000 - left
    wanted = [cut * 100 * (1 + moves[0]), cut * 100 * (1 + moves[1]), 3000 * 100 * (1 + moves[2])]
    np.testing.assert_allclose(closed.values[:, 0], wanted, rtol=1e-9)


# ------------------------------------------------------------------------------------- the reproduction number
LEVEL, BLOCK, BEFORE, AT = 0.06, 1e6, 10, 40
"""Price level, size of the block [USD], and steps at which prices come near the level and to it."""


def isolated_at(trigger: float, usd: float, place: str, asset: str, name: str) -> tuple:
    """A position worth so much at the start, of which maintenance of 1 % is met at a price."""
    sign = 1 if trigger < 100 else -1
    coins = usd / 100
    return place, name, asset, sign * coins, 100, coins * (sign * (100 - trigger) + 0.01 * trigger), "isolated", 1


def crowded(folder: Path) -> Run:
    """Two markets of A and one of B; accounts behind -6 and +6 % of A and behind the start of B, few before it.

    The block is an account whose trigger is the level. Two rounds a step: it goes in the first, what it triggers in the
    second. Imbalances are gone by the next step, and depth stays.
    """
    rows: list[tuple] = []
    for s in (-1, 1):
        level = 100 * (1 + s * LEVEL)
        rows.append(isolated_at(level * (1 - s * 1e-9), BLOCK * 100 / level, "last", "A", f"block{s}"))
        for place in ("last", "median"):
            behind = level * np.exp(s * np.linspace(1.3e-4, 8e-3, 40))
            rows += [isolated_at(t, 4e4, place, "A", f"{place}{s}-{i}") for i, t in enumerate(behind.tolist())]
            gone = 100 * np.exp(s * np.linspace(0.01, 0.055, 10))
            rows += [isolated_at(t, 500, place, "A", f"{place}{s}+{i}") for i, t in enumerate(gone.tolist())]
        others = 100 * np.exp(s * np.linspace(1e-4, 2e-3, 20))
        rows += [isolated_at(t, 2e4, "last", "B", f"b{s}-{i}") for i, t in enumerate(others.tolist())]
    both = {"A": market(), "B": market()}
    places = [venue("last", both, mark="last"), venue("median", both)]
    impact = {"i_ref": 0.01, "contagion": 0.3, "depth": False, "half_life_local_seconds": 2,
              "half_life_global_seconds": 2}  # fmt: skip
    files = {"positions": written(folder, rows, [])["positions"]}
    return run_of(places, {"A": 0.05, "B": 0.05}, None, portfolio=files, impact=impact, rounds=2, horizon_hours=1)


def test_the_reproduction_number_is_what_a_block_triggers_in_the_engine(tmp_path: Path) -> None:
    """Prices come to a level in the engine, where a forced order of the size of the block is executed."""
    run = crowded(tmp_path)
    number = Levels(run, device="cpu").reproduction_number([-LEVEL, LEVEL], block_usd=BLOCK)
    built = build(run)
    level = np.zeros((60, 2, 2))
    for path, s in enumerate((-1, 1)):
        level[BEFORE:, 0, path], level[AT:, 0, path] = np.log1p(s * (LEVEL - 2e-3)), np.log1p(s * LEVEL)
    follow = jax.jit(trace)
    for path, (side, move) in enumerate((("long", -LEVEL), ("short", LEVEL))):
        steps = jax.device_get(follow(level, built.ladders, built.world, np.int32(path)))
        first, closed = steps["first_round_volume"][AT], steps["liquidation_volume"][AT].sum(axis=-1)
        before = steps["liquidation_volume"][:AT].sum(axis=(1, 2, 3))
        assert np.count_nonzero(before) == 1 and before[BEFORE] == pytest.approx(20 * 500, rel=0.07)
        assert first.sum() == pytest.approx(first[0, 0]) == pytest.approx(BLOCK, rel=1e-6)
        assert steps["liquidation_volume"][AT + 1 :].sum() == 0
        triggered = closed.sum() - BLOCK
        found = number.sel(venue="last", asset="A", side=side, move=move)
        assert 0.3 < triggered / BLOCK < 3
        assert float(found["reproduction_number"]) == pytest.approx(triggered / BLOCK, rel=1e-6)
        assert float(found["own"]) == pytest.approx((closed[0, 0] - BLOCK) / BLOCK, rel=1e-6)
        assert closed[0, 0] - BLOCK < triggered
        assert (closed[1, 0] > 0) and (closed[0, 1] > 0)


def test_the_reproduction_number_is_a_sum_over_positions(tmp_path: Path) -> None:
    """Whoever is closed behind the level, with baskets and inverse contracts: the block's impact by hand."""
    rows, posted = some_accounts()
    run, move, block = mapped(tmp_path), -0.13, 3e8
    run = run.model_copy(update={"impact": run.impact.model_copy(update={"i_ref": 0.01})})
    found = Levels(run, device="cpu").reproduction_number([move], block_usd=block)["reproduction_number"]
    push = 0.01 * 2 * (block / 2e9 / 0.01) ** 0.7  # 5 % daily volatility, and two venues of 1e9 USD a day list A
    level = {"A": 100 * (1 + move), "B": 100.0}
    gone, closed = (brute_force(rows, posted, level | {"A": a}) for a in (level["A"], level["A"] * np.exp(-0.4 * push)))
    baskets = [row for row in rows if row[:1] + row[6:7] == ("whole", "cross")]
    assert sum(brute_force(baskets, posted, level).values()) > 1e6
    # What is gone is worth less at the lower mark.
    fallen = {key: usd * (np.exp(-0.4 * push) if key[1] == "A" else 1.0) for key, usd in gone.items()}
    wanted = (sum(closed.values()) - sum(fallen.values())) / block
    assert wanted > 0.003
    for place in ("whole", "counted"):
        assert float(found.sel(venue=place, asset="A", side="long", move=move)) == pytest.approx(wanted, rel=1e-9)
    assert np.isnan(found.sel(venue="coins", asset="A")).all()


def test_the_number_falls_with_the_block_and_rises_with_thinner_books(tmp_path: Path) -> None:
    """Impact is concave, so that half a block moves prices by more than half; and is stated for its size."""
    levels = Levels(crowded(tmp_path), device="cpu")

    def of(place: str, **given: Any) -> float:
        found = levels.reproduction_number([-LEVEL, LEVEL], **given)
        return float(found["reproduction_number"].sel(venue=place, asset="A", side="long", move=-LEVEL))

    assert of("last", block_usd=BLOCK / 4) > 1.2 * of("last", block_usd=BLOCK)
    assert of("last", block_usd=BLOCK / 4, depth=4.0) == pytest.approx(4 * of("last", block_usd=BLOCK), rel=1e-9)
    # A median shows what has reached the index; there a block moves no mark by more.
    assert 0 < of("median") < of("last")
    found = levels.reproduction_number([-LEVEL, LEVEL])
    assert np.isnan(found["reproduction_number"].sel(side="long", move=LEVEL)).all()


def test_betas_are_those_of_the_shock(tmp_path: Path) -> None:
    run = mapped(tmp_path)
    assert betas(run) == pytest.approx({"A": 1.0, "B": 1.5})
    still = run.model_copy(update={"shock": run.shock.model_copy(update={"moves": {"A": (0.0, 0.0)}})})
    assert betas(still) == {"A": 1.0, "B": 1.0}
    with pytest.raises(ValueError, match="above -1"):
        Levels(run, device="cpu").liquidation_map([-1.0])


# ------------------------------------------------------------------------------------------------ the command
@pytest.fixture
def in_32_bits():
    with jax.enable_x64(False):
        yield


def test_the_command_prints_draws_and_writes(in_32_bits: None, small: Path, liqstress: Command, tmp_path: Path) -> None:
    """The small run of the tests: 500 BTC long at 100 USD with margins of 12 close at 1 % and less."""
    file, picture = tmp_path / "map.csv", tmp_path / "map.png"
    outcome = liqstress("map", small, "--csv", file, "--picture", picture, "--block", "1e4")
    assert outcome.code == 0, outcome.err
    for words in ("small: closed by a jump of the price, all venues [k USD]", "log-returns by BTC 1.00, ETH 1.20",
                  "per USD of a block of 10.0 k USD at here", str(file), str(picture)):  # fmt: skip
        assert words in outcome.out
    # 700 BTC at 50 USD, 4000 ETH at 5; together ETH is at 10 x 0.5^1.2.
    assert "-50 %    35    20  52.4" in outcome.out
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.with_suffix(".svg").exists()
    with file.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    row = next(row for row in rows if (row["moved"], row["move"], row["side"]) == ("BTC", "-0.05", "long"))
    # Trigger of the first row: 12 + 10 (m - 100) = 0.005 x 10 m, at m = 99.30; of the second 97.49.
    assert float(row["closed_usd"]) == pytest.approx((500 + 200) * 95, rel=1e-6)
    up_to = sum(float(r["added_usd"]) for r in rows
                if r["moved"] == "BTC" and r["side"] == "long" and -0.05 <= float(r["move"]) <= 0)  # fmt: skip
    assert up_to == pytest.approx(500 * 99 + 200 * 97, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--block", "0"], "--block is 0, expected a number above 0"),
        (["--block", "nan"], "--block is nan, expected a number above 0"),
        (["--depth", "0.5"], "--depth is 0.5, expected a number of at least 1"),
        (["--picture", "no/such/folder/map.png"], "cannot be written"),
    ],
)
def test_bad_input_gets_one_line(
    in_32_bits: None, words: list[str], said: str, small: Path, liqstress: Command
) -> None:
    outcome = liqstress("map", small, *words)
    assert outcome.code == (3 if words[0] == "--picture" else 2)
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
