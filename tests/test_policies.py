"""Policies: what the files change, how tables and factors are put over a run, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Command
from test_refusals import edit, refused

from stress.common_base import differences
from stress.config import Run, load_config
from stress.merge import merged, scaled
from stress.policies import Policy, read_policy
from stress.spec import InputError, validate

CONFIGS = ROOT / "configs"
FILES = sorted((CONFIGS / "policies").glob("*.toml"))


def policy(**tables: Any) -> Policy:
    return validate(Policy, {"name": "p", "source": "made up for tests", **tables}, "p.toml")


def changes(base: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted key: before and after."""
    found = differences(other.model_dump(mode="json"), base.model_dump(mode="json"))
    return {key: (before, after) for key, after, before in found}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_policy_is_named_after_its_file_and_changes_rules_alone(file: Path) -> None:
    read = read_policy(file)
    assert read.name == file.stem
    assert len(read.description) > 20
    base = load_config(CONFIGS / "crash.toml")
    found = changes(base, load_config(CONFIGS / "crash.toml", policies=[read]))
    assert found.pop("name") == ("crash", f"crash-{file.stem}")
    assert all(key.startswith(("venues.", "portfolio.leverage_cap", "behaviour")) for key in found)
    assert bool(found) == (file.stem != "present")


def test_factors_multiply_every_market_of_every_venue() -> None:
    found = changes(
        load_config(CONFIGS / "crash.toml"),
        load_config(CONFIGS / "crash.toml", policies=[read_policy(CONFIGS / "policies" / "engine_slow.toml")]),
    )
    found.pop("name")
    assert len(found) == 3 * 5
    assert all(after == pytest.approx(0.1 * before) for before, after in found.values())
    assert all(key.endswith("throughput_usd_per_minute") for key in found)


def test_own_funds_divide_the_money_and_the_markets() -> None:
    base = load_config(CONFIGS / "crash.toml")
    split = load_config(CONFIGS / "crash.toml", policies=[policy(subpools={"SOL": 0.1, "DOGE": 0.25})])
    for name, venue in split.venues.items():
        money = {pool.name: pool.equity_usd for pool in venue.pools}
        whole = base.venues[name].pools[0].equity_usd
        assert money == pytest.approx({"main": 0.65 * whole, "main-SOL": 0.1 * whole, "main-DOGE": 0.25 * whole})
        assert venue.pools[0].markets == ("BTC", "ETH", "XRP")
        assert [venue.pools[venue.pool_of(asset)].name for asset in ("BTC", "SOL")] == ["main", "main-SOL"]


def test_tables_merge_through_every_key_and_item() -> None:
    under = {"a": {"x": {"n": 1}, "y": {"n": 2, "list": [{"m": 1, "k": 5}, {"m": 2}]}}, "s": {"kind": "p", "z": 1}}
    over = {"a": {"*": {"n": 7}, "y": {"list": {"*": {"m": 0}}}}, "s": {"kind": "q"}}
    assert merged(under, over) == {
        "a": {"x": {"n": 7}, "y": {"n": 7, "list": [{"m": 0, "k": 5}, {"m": 0}]}},
        "s": {"kind": "q"},
    }
    assert scaled(under, {"a": {"*": {"n": 10}, "y": {"list": {"*": {"m": 0.5}}}}})["a"] == {
        "x": {"n": 10},
        "y": {"n": 20, "list": [{"m": 0.5, "k": 5}, {"m": 1.0}]},
    }
    assert under["a"]["x"] == {"n": 1}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"change": {"seed": 2}}, r"change\.seed is part of the base that policies share.*Put it into the run"),
    "shock": ({"change": {"shock": {"jitter_size": 0}}}, r"change\.shock is part of the base"),
    "positions": ({"change": {"portfolio": {"positions": "x.csv"}}}, r"change\.portfolio\.positions is part of the"),
    "venue that is not there": ({"change": {"venues": {"kraken": {}}}}, r"names 'kraken', expected a venue of the run"),
    "factor on nothing": ({"scale": {"venues": {"*": {"fee": 2}}}}, r"scale\.venues\.\*\.fee is 2, .*there is nothing"),
    "factor on a word": ({"scale": {"venues": {"*": {"mark": 2}}}}, r"venues\.\*\.mark is 2, .* there is 'median'"),
    "factor that is none": ({"scale": {"venues": {"*": {"liquidation_fee_bps": "x"}}}}, r"is 'x', expected a factor"),
    "more than all": ({"subpools": {"BTC": 0.7, "ETH": 0.6}}, r"fund 'main' at 'binance' sum to 1\.3, expected at"),
    "money without a market": (
        {"subpools": dict.fromkeys(("BTC", "ETH", "SOL", "XRP", "DOGE"), 0.1)}, r"sum to 0\.5, expected 1, as no market"
    ),
    "key that is none": ({"change": {"venues": {"*": {"fee": 2}}}}, r"venues\.binance\.fee is not a known key"),
    "cap below 1x": (
        {"change": {"portfolio": {"leverage_cap": {"maximum": 0.5}}}},
        r"portfolio\.leverage_cap: maximum is 0\.5, expected at least 1, .* Give 1 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_policies_are_refused(name: str) -> None:
    tables, words = WRONG[name]
    with pytest.raises(InputError, match=words):
        load_config(CONFIGS / "crash.toml", policies=[policy(**tables)])


def test_a_wrong_policy_is_one_line_on_the_command_line(small: Path, liqstress: Command) -> None:
    file = small.with_name("cap.toml")
    file.write_text('name = "cap"\nsource = "x"\n[change.portfolio.leverage_cap]\nmaximum = 0.5\n', encoding="utf-8")
    line = refused(liqstress, small, "--policy", file)
    assert "portfolio.leverage_cap: maximum is 0.5, expected at least 1" in line
    edit(file, "maximum = 0.5", "maximum = 20")
    assert "[portfolio.leverage_cap]" in liqstress("check", small, "--policy", file).out
