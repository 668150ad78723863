"""The liquidation engine of `lrvx` over the marks of one path, for stress/bench_peer.py.

A program of its own: after JAX, its library may find no memory for its thread-local variables and not load.

Reads JSON: rules, positions and marks. Writes JSON: the seconds, opening of positions not counted, and how many
positions each mark liquidates.
"""

import json
import sys
import time

from lrvx import LiquidationEngine

SYMBOL = 1


def main() -> None:
    given = json.load(sys.stdin)
    engine = LiquidationEngine()
    engine.add_tier(0.0, given["rate"])
    engine.set_insurance_fund_capital(given["fund"])
    engine.set_liquidation_slippage_bps(0.0)
    engine.set_mark_impact_model("none")
    engine.set_adl_enabled(False)
    account = 0
    for quantity, margin, copies in given["positions"]:
        for _ in range(copies):
            account += 1
            engine.open_position(account, SYMBOL, quantity, given["start"], margin)
    began = time.perf_counter()
    said = [engine.on_mark(SYMBOL, mark) for mark in given["marks"]]
    seconds = time.perf_counter() - began
    json.dump({"seconds": seconds, "liquidated": [each["liquidations_count"] for each in said]}, sys.stdout)


if __name__ == "__main__":
    main()
