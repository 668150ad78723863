"""Stress tests for leveraged crypto markets: liquidation cascades, insurance funds, auto-deleveraging.

    config = stress.load_config("configs/quickstart.toml")
    ds = stress.run(config)                     # an xarray.Dataset
    ds = stress.open_run("runs/quickstart-....zarr")
    ds.liq.quantile([0.5, 0.99])                # with intervals; ds.liq.plot.fan() and others
    suite = stress.run_suite(stress.read_suite("configs/suite.toml"))
    one = stress.cell(suite, "crash", "present")
    found = stress.compare({"present": one, "capped": stress.cell(suite, "crash", "leverage_cap_10x")})
    stress.report("runs/NAME-HASH.zarr", out="report")      # HTML, PDF, CSV and JSON

Names are looked up on first use, so that `import stress` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stress.amplify import amplification as amplification
    from stress.comparison import compare as compare
    from stress.config import load_config as load_config
    from stress.drilldown import explain as explain
    from stress.levels import Levels as Levels
    from stress.report.make import report as report
    from stress.results import open_run as open_run
    from stress.reverse import Reverse as Reverse
    from stress.run import run as run
    from stress.suite import read_suite as read_suite
    from stress.suite_run import cell as cell
    from stress.suite_run import run_suite as run_suite

    __version__: str

__all__ = [
    "Levels",
    "Reverse",
    "__version__",
    "amplification",
    "cell",
    "compare",
    "explain",
    "load_config",
    "open_run",
    "read_suite",
    "report",
    "run",
    "run_suite",
]

_HOMES = {
    "Levels": "stress.levels",
    "Reverse": "stress.reverse",
    "amplification": "stress.amplify",
    "cell": "stress.suite_run",
    "compare": "stress.comparison",
    "explain": "stress.drilldown",
    "load_config": "stress.config",
    "open_run": "stress.results",
    "read_suite": "stress.suite",
    "run_suite": "stress.suite_run",
}


def __getattr__(name: str) -> Any:
    if name in ("report", "run"):  # modules, which can be called as their functions
        return importlib.import_module(f"stress.{name}")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("liqstress")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stress' has no attribute {name!r}")


if "xarray" in sys.modules:
    importlib.import_module("stress.accessor")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
