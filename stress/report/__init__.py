"""Reports of finished runs for risk committees and supervisors: HTML, PDF, and the same numbers for machines.

The package can be called as its function: `stress.report("runs/NAME-HASH.zarr", out="report")`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """This package is also the function, whoever imported what before; what it needs is imported when it is called."""

    def __call__(self, *runs: Any, **given: Any) -> Any:
        """`stress.report.make.report`."""
        from stress.report.make import report

        return report(*runs, **given)


sys.modules[__name__].__class__ = _Callable
