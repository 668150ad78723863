"""A finished suite on the terminal: a line for each cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from stress import risk
from stress.console import console, figures_table
from stress.suite_run import cell

if TYPE_CHECKING:
    import xarray as xr


def show_suite(ds: xr.Dataset, store: Path) -> None:
    """Print the figures of each scenario and policy, all seeds together, and where the suite lies."""
    out, sizes = console(), ds.sizes
    paths = f"{sizes['seed'] * sizes['path']:,} paths of {sizes['hour']} h"
    seeds = f" over {sizes['seed']} seeds" if sizes["seed"] > 1 else ""
    title = f"{ds.attrs['name']}: means over {paths}{seeds} in each cell"
    table = figures_table(
        title, "scenario", "", "liquidated", "99 % of hours", "ADL", "funds fall", "socialised", "exhausted"
    )
    for scenario in ds["scenario"].values:
        table.add_section()
        for i, policy in enumerate(ds["policy"].values):
            names = escape(str(scenario)) if i == 0 else "", escape(str(policy))
            table.add_row(*names, *figures(cell(ds, scenario, policy)))
    out.print(table)
    out.print(f"made in  {ds.attrs['wall_seconds']:,.1f} s, {ds.attrs['device']}")
    out.print(f"store    {escape(str(store))}", soft_wrap=True)
    out.print(f"compare  liqstress compare {escape(str(store))}", soft_wrap=True)


def figures(ds: xr.Dataset) -> list[str]:
    """The columns of one cell; the last is the chance that the fund that runs dry most often does."""
    s = risk.summary(ds)
    funds = s.pools.values()
    failed = f" ({s.failed} failed)" if s.failed else ""
    exhausted = max((fund.exhausted.value for fund in funds if fund.funded), default=0.0)
    return [
        risk.usd(s.hourly.mean * s.hours) + failed,
        risk.usd(s.hourly.quantiles[0.99].value),
        risk.usd(sum(adl.mean for adl in s.adl.values())),
        risk.usd(sum(fund.drawdown.mean for fund in funds)),
        risk.usd(sum(fund.socialised.mean for fund in funds)),
        risk.percent(exhausted),
    ]
