"""What the command line shows of the days after a run's last hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stress.days import courses, has_days, of_days
from stress.risk import percent, usd

if TYPE_CHECKING:
    import xarray as xr

_MOST = 6
"""Days that are shown."""
_RARE = 0.95


class Rows(NamedTuple):
    """A table, ready to print."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def day_rows(ds: xr.Dataset) -> Rows | None:
    """Medians over paths of each day, and below them what 5 % of paths exceed; nothing of a run without days."""
    if not has_days(ds) or not (found := list(courses(ds))):
        return None
    last = ds.sizes["day"] - 1
    shown = sorted({round(i * last / min(_MOST - 1, last)) for i in range(min(_MOST, last + 1))})
    rows = []
    for course in found:
        text = usd if course.units == "USD" else percent if "volatility" in course.name else "{:.2f}".format
        middle, rare = (of_days(ds, course, level) for level in (0.5, _RARE))
        cells = [f"{text(middle[day].value)}\n[dim]{text(rare[day].value)}[/dim]" for day in shown]
        rows.append([course.name, *cells])
    title = f"days after the last hour: medians, and the {100 * _RARE:g} % quantiles below them"
    return Rows(title, ["day", *map(str, shown)], rows)
