"""How fast recorded days went back: what `configs/recovery.toml` says of them, read off the data again."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import DATA, ROOT

PRICES, CHAIN = DATA / "prices_1h_spot_2019_2022", DATA / "onchain_daily_2012_2024"
HALF_LIVES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
APART = pd.Timedelta(days=14)
EPISODES, DAYS = 15, 8
RULE = tomllib.loads((ROOT / "configs" / "recovery.toml").read_text(encoding="utf-8"))["behaviour"]["recovery"]

pytestmark = pytest.mark.skipif(not PRICES.is_dir(), reason=f"recorded prices are not at {PRICES}")


def episodes(worst_first: Any) -> list[pd.Timestamp]:
    """The worst days, of those within a fortnight of each other the worst."""
    found: list[pd.Timestamp] = []
    for day in worst_first.index:
        if all(abs(day - other) >= APART for other in found):
            found.append(day)
    return found[:EPISODES]


def variances(asset: str) -> tuple[Any, Any]:
    """Squared hourly log-returns, over their mean, and their sums of days."""
    bars: Any = pd.read_parquet(PRICES / f"{asset}USDT_1h.parquet").set_index("time")
    squares = pd.Series(np.log(bars["close"])).diff().dropna() ** 2
    squares = squares / squares.mean()
    return squares, squares.resample("1D").sum() / 24


def forecasts(squares: Any, days: list[pd.Timestamp], half_life: float) -> np.ndarray:
    """Mean variance of each of the days after some, as the recovery has it: [episode, day]."""
    level = squares.ewm(halflife=24 * half_life).mean()
    excess = np.array([level.asof(day + pd.Timedelta(hours=23)) for day in days]) - 1
    k = np.arange(DAYS)
    left = (2 ** (-k / half_life) - 2 ** (-(k + 1) / half_life)) * half_life / np.log(2)
    return 1 + excess[:, None] * left


@pytest.mark.parametrize(("asset", "best"), [("BTC", 2.0), ("ETH", 3.0)])
def test_variance_of_the_roughest_days_comes_down_as_assumed(asset: str, best: float) -> None:
    squares, daily = variances(asset)
    days = episodes(daily.nlargest(60))
    after = np.array([[daily[day + pd.Timedelta(days=k)] for k in range(1, 1 + DAYS)] for day in days])
    told = {h: forecasts(squares, days, h) for h in HALF_LIVES}
    loss = {h: float(np.mean(after / f + np.log(f))) for h, f in told.items()}
    assert min(loss, key=lambda h: loss[h]) == best
    assert loss[RULE["volatility_half_life_days"]] < loss[best] + 0.02 < loss[0.75]
    if asset == "BTC":
        realised = np.concatenate([[np.mean([daily[day] for day in days])], after.mean(axis=0)])
        assert " ".join(f"{x:.1f}" for x in realised[1:]) in " ".join(RULE["source"].split())
        assert f"{realised[0]:.1f} on the day itself" in RULE["source"]
        assert " ".join(f"{x:.1f}" for x in told[2.0].mean(axis=0)) in " ".join(RULE["source"].split())


def after_falls() -> tuple[np.ndarray, np.ndarray]:
    """Of BTC from the day of a fall on: open interest in coins, and over the coins at exchanges, the day before 1."""

    def column(name: str) -> Any:
        table: Any = pd.read_csv(CHAIN / f"{name}.csv", encoding="utf-8-sig")
        return table.set_index(pd.to_datetime(table["Date"], format="%Y.%m.%d"))["Data"]

    names = {"usd": "open_interest", "price": "BTC_price", "held": "exchange_reserves"}
    daily: Any = pd.DataFrame({key: column(name) for key, name in names.items()}).dropna()
    moved: Any = pd.DataFrame(np.log(daily)).diff()
    falls = moved["usd"][moved["price"] < -0.05]
    coins, held = (daily["usd"] / daily["price"]).to_numpy(), daily["held"].to_numpy()
    places = [int(daily.index.get_loc(day)) for day in episodes(falls.nsmallest(40))]
    left, ratio = (np.array([x[i : i + 31] / x[i - 1] for i in places]) for x in (coins, coins / held))
    return left, ratio


def test_leverage_stays_where_a_fall_has_left_it() -> None:
    """Open interest over the coins at exchanges stands for it."""
    middle = np.median(after_falls()[1], axis=0)
    for day, share in ((0, 0.87), (1, 0.83), (5, 0.86), (10, 0.88), (30, 0.91)):
        assert middle[day] == pytest.approx(share, abs=0.006), day


def test_open_interest_comes_back_as_slowly_as_assumed() -> None:
    left, _ = after_falls()
    middle, mean = np.median(left, axis=0), left.mean(axis=0)
    for day, share in ((0, 0.88), (1, 0.84), (5, 0.86), (14, 0.89), (30, 0.92)):
        assert middle[day] == pytest.approx(share, abs=0.006), day

    def half_life(shares: np.ndarray, until: int) -> float:
        days = np.arange(1, until + 1)
        return float(-np.log(2) / np.polyfit(days, np.log(1 - shares[days]), 1)[0])

    found = [half_life(shares, until) for until in (14, 30) for shares in (middle, mean)]
    assert [round(days) for days in found] == [18, 28, 38, 22]
    assert min(found) < RULE["open_interest"]["half_life_days"] < max(found)
