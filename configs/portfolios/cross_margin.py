"""Writes cross_margin-positions.csv, cross_margin-collateral.csv and depeg-collateral.csv: 300 made-up accounts.

    uv run python configs/portfolios/cross_margin.py [FOLDER]

Baskets over BTC, ETH and SOL at Binance and Bybit: 45 % of the accounts are long, 15 % short, 40 % long one asset
against another. Leverage is what desks might run, more of it on hedged baskets; all of it is assumed. For depeg.toml
the same accounts hold 60 % of their cash in USDE and 15 % in BTC.
"""

import contextlib
import csv
import sys
from pathlib import Path

import numpy as np

PRICE = {"BTC": 112_000, "ETH": 4_100, "SOL": 185}
ACCOUNTS = 300


def rounded(x: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{x:.{digits}g}")


def account(rng: np.random.Generator) -> tuple[dict[str, tuple[float, float]], float]:
    """Quantity and entry price by asset, and cash [USD]."""
    style = rng.choice(["long", "short", "hedged"], p=[0.45, 0.15, 0.4])
    legs = rng.permutation(list(PRICE))[: rng.choice([2, 3]) if style == "hedged" else rng.choice([1, 2, 3])]
    sign = {"long": np.ones(3), "short": -np.ones(3), "hedged": rng.permutation([1, -1, rng.choice([-1, 1])])}[style]
    if style == "hedged":
        sign[:2] = [1, -1]
    gross = np.clip(rng.lognormal(np.log(4e5), 1.2), 2e4, 2e7)
    leverage = np.clip(rng.lognormal(np.log(8 if style == "hedged" else 4), 0.6), 1.5, 25)
    shares = rng.dirichlet(np.full(len(legs), 4.0))
    positions, profit = {}, 0.0
    for asset, share, way in zip(legs, shares, sign, strict=False):
        price = PRICE[asset]
        quantity = rounded(way * share * gross / price, 2)
        entry = rounded(price * np.exp(rng.normal(0, 0.03)), 4)
        positions[str(asset)] = quantity, entry
        profit += quantity * (price - entry)
    return positions, rounded(gross / leverage - profit, 3)


def main(folder: Path) -> None:
    """Write both files."""
    rng = np.random.default_rng(1)
    names = "cross_margin-positions.csv", "cross_margin-collateral.csv", "depeg-collateral.csv"
    with contextlib.ExitStack() as stack:
        files = (stack.enter_context((folder / name).open("w", newline="")) for name in names)
        positions, collateral, in_coins = (csv.writer(file, lineterminator="\n") for file in files)
        positions.writerow(["venue", "account", "asset", "quantity", "entry_price", "margin", "mode", "count"])
        collateral.writerow(["venue", "account", "token", "amount"])
        in_coins.writerow(["venue", "account", "token", "amount"])
        for i in range(ACCOUNTS):
            venue, count = ("binance", "bybit")[i % 5 // 3], rng.choice([2, 5, 10, 20])
            legs, cash = account(rng)
            for asset, (quantity, entry) in legs.items():
                positions.writerow([venue, f"desk-{i}", asset, f"{quantity:g}", f"{entry:g}", "", "cross", count])
            collateral.writerow([venue, f"desk-{i}", "USD", f"{cash:.0f}"])
            usde, btc = max(0.6 * cash, 0.0), max(0.15 * cash, 0.0)
            in_coins.writerow([venue, f"desk-{i}", "USD", f"{cash - usde - btc:.0f}"])
            if cash > 0:
                in_coins.writerow([venue, f"desk-{i}", "USDE", f"{usde:.0f}"])
                in_coins.writerow([venue, f"desk-{i}", "BTC", f"{btc / PRICE['BTC']:.6f}"])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
