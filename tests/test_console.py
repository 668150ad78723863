"""What the command line shows of a run beyond the figures of every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_results import backstopped, synthetic

from stress import console
from stress.config import load_config

MADE = {"seed": 1, "paths": 10, "wall_seconds": 1.0, "paths_per_second": 10.0, "device": "cpu", "git_commit": "abc"}


def printed(ds, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines of a run's tables."""
    console.show_run(ds.assign_attrs(**MADE, liqstress_version="1"), Path("a.zarr"), Path("a.png"))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_tables_of_mechanisms_are_there_where_they_do_something(capsys: pytest.CaptureFixture[str]) -> None:
    more = {
        "backstop vaults, per run",
        "who pays for ADL, medians of runs with it",
        "collateral sold in the spot market, per run",
    }
    assert more <= set(printed(backstopped(), capsys))
    ds = synthetic(paths=10, hours=3)
    plain = printed(ds.assign(adl_volume=0 * ds["adl_volume"]), capsys)
    assert not more & set(plain)
    assert "" not in plain, "a table of nothing"


def test_one_path_has_no_intervals_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    said = "One path: these are its own figures, and say nothing of how often they come."
    lines = printed(synthetic(paths=1, hours=3), capsys)
    assert said in lines and not any("95 % interval" in line or "or more" in line for line in lines)
    many = printed(synthetic(paths=10, hours=3), capsys)
    assert said not in many and any("95 % interval" in line for line in many)


def test_a_fund_without_money_has_dashes_and_the_order_of_rows_stays(capsys: pytest.CaptureFixture[str]) -> None:
    ds = backstopped().isel(pool=[2, 0, 1])
    lines = printed(ds, capsys)
    funds = lines[lines.index("insurance funds") + 1 : lines.index("backstop vaults, per run")]
    assert funds[0].split() == ["okx/main", "binance/main", "bybit/main"]
    named = [line for line in funds[1:] if not line.startswith(" ")]
    assert named[0].startswith("drawdown, median of runs") and named[-1].startswith("chance of a socialised loss")
    exhaustion = next(line for line in named if line.startswith("chance of exhaustion"))
    assert exhaustion.removeprefix("chance of exhaustion").split() == ["-", "0", "%", "0", "%"]


def test_no_line_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    ds = backstopped()
    for name in ("adl_volume", "socialised_loss"):
        ds[name][:] = np.linspace(2e9, 8e9, 10).reshape(-1, *[1] * (ds[name].ndim - 1))
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in printed(ds, capsys))


def test_a_token_without_a_market_has_no_open_interest_to_show(small: Path) -> None:
    from stress.build import build

    text = small.read_text(encoding="utf-8")
    token = "[assets.USDE]\ndaily_volatility = 0.002\nspot_adv_usd = 1e6\n\n[prices.start]\nUSDE = 1\n"
    text = text.replace("[prices.start]\n", token).replace("ETH = 0.06 }", "ETH = 0.06, USDE = 0.001 }")
    small.write_text(text, encoding="utf-8")
    spec = load_config(small)
    interest = next(line for line in console.facts_of(build(spec), spec) if line.startswith("open interest"))
    assert "ETH" in interest and "USDE" not in interest
