"""What the command line shows of tails, fund sizes and cover-N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from stress.console import console, figures_table
from stress.cover import Cover
from stress.fund_size import FundSize
from stress.intervals import Estimate
from stress.risk import percent, span, usd
from stress.tail import Candidate, Tail, paths_needed

_ENDS = "95 % interval"
_SHOWN = 5
_NO_VARIANCE = 0.5
"""Shape from which on a tail has none [1]."""
"""Rows of accounts shown of a fund."""
_HOW_TO_READ = (
    "with ADL: and what winners lost to deleveraging. safe side: the run's own fund lasts, a smaller one takes over\n"
    "less. lower bound: it does not, a larger one takes over more and loses more. Run again with the size read off,\n"
    "and look at the chance of exhaustion."
)


def show_tail(found: Tail, name: str, picture: Path) -> None:
    """Print levels and diagnostics of a tail."""
    out, tail = console(), found.chosen.fit.tail
    levels = figures_table(f"{name}: {found.what}", "", " ", "in the paths", _ENDS, "fitted tail", _ENDS)
    for level, at in found.levels.items():
        levels.add_row(f"{100 * level:g} % of runs", "at most", *_money(at.seen, exact=True), *_money(at.fitted))
        levels.add_row("", "mean beyond", *_money(at.seen_shortfall), *_money(at.fitted_shortfall))
    out.print(levels)
    shape = found.chosen.shape
    out.print(
        f"tail       above {usd(tail.threshold)}, {percent(tail.chance)} of runs; shape {shape.value:.2f} "
        f"({span(shape, '{:.2f}'.format)}), scale {usd(tail.scale)}\nthreshold  {found.reason}\n"
    )
    checks = figures_table("other thresholds", "above", "paths", "mean excess", _ENDS, "shape", _ENDS, "fit, p")
    for candidate in found.candidates:
        checks.add_row(*_diagnostics(candidate))
    out.print(checks)
    _explain_marks(out, [at.seen for at in found.levels.values()], len(found.values), list(found.levels))
    if shape.value >= _NO_VARIANCE:
        out.print(
            f"From a shape of {_NO_VARIANCE:g} on a tail has no variance, from 1 on no mean: means beyond hang on "
            "what is not among the paths.",
            soft_wrap=True,
        )
    out.print(f"picture    {picture}, .svg", soft_wrap=True, markup=False)


def show_funds(found: Mapping[str, FundSize], name: str, paths: int) -> None:
    """Print what funds would need."""
    out = console()
    for pool, fund in found.items():
        chance = f"exhausted in {percent(fund.exhausted.value)} of runs ({span(fund.exhausted, percent)})"
        title = f"{name}: fund {pool} of {usd(fund.size)}, {chance}"
        rows = figures_table(title, "lasts in", "needs", _ENDS, "fitted tail", _ENDS, "with ADL", "reading")
        for level, at in fund.levels.items():
            cells = *_money(at.seen, exact=True), *_money(at.fitted), usd(at.with_adl.value), at.reading
            rows.add_row(f"{100 * level:g} % of runs", *cells)
        out.print(rows)
    seen = [at.seen for fund in found.values() for at in fund.levels.values()]
    _explain_marks(out, seen, paths, list(next(iter(found.values())).levels))
    out.print(_HOW_TO_READ, soft_wrap=True)


def show_cover(found: Mapping[str, Cover], moves: Mapping[str, float], n: int, left_out: Sequence[str] = ()) -> None:
    """Print each fund against its largest accounts, and what of the run plays no part."""
    text = ", ".join(f"{asset} {100 * move:+.3g} %" for asset, move in moves.items() if move)
    accounts = "row", "copies", "notional", "loss of one"
    rows = figures_table(f"cover-{n}: {text}", "fund", "size", "losses", "fund / losses", *accounts)
    for pool, of in found.items():
        shown = of.defaults[:_SHOWN]
        names = [f"{d.row:,}" if d.row > 0 else f"overlays[{-d.row}]" for d in shown]
        lines = [(name, f"{d.copies:.3g}", usd(d.notional), usd(d.loss)) for name, d in zip(names, shown, strict=True)]
        more = len(of.defaults) - _SHOWN
        lines += [(f"{more:,} more", "", "", "")] if more > 0 else []
        first, *others = lines or [("-", "-", "-", "-")]
        rows.add_row(pool, usd(of.size), usd(of.loss), "-" if np.isinf(of.ratio) else f"{of.ratio:.3g} x", *first)
        for other in others:
            rows.add_row("", "", "", "", *other)
    out = console()
    out.print(rows)
    if left_out:
        out.print(f"Accounts and books are those of the start: {', '.join(left_out)} play no part.", markup=False)


def _diagnostics(candidate: Candidate) -> list[str]:
    shape, test = candidate.shape, candidate.test
    above, paths = usd(candidate.threshold), f"{len(candidate.fit.excess):,}"
    fits = "-" if np.isnan(test) else f"{test:.2f}"
    return [above, paths, *_money(candidate.mean_excess), f"{shape.value:.2f}", span(shape, "{:.2f}".format), fits]


def _money(e: Estimate | None, *, exact: bool = False) -> tuple[str, str]:
    """A figure and its interval in cells; a star where it might have been exact and is not."""
    if e is None:
        return "-", ""
    if np.isinf(e.value):
        return "infinite", ""
    return usd(e.value), span(e, usd) + (" *" if exact and not e.exact else "")


def _explain_marks(out: Console, seen: list[Estimate], paths: int, levels: list[float]) -> None:
    """What stars and open ends mean, where there are any."""
    if not all(e.exact for e in seen):
        out.print("* about 95 %, as paths have weights; without them intervals in the paths are exact.")
    for level in levels:
        if paths < paths_needed(level):
            out.print(f"An upper end at {100 * level:g} % takes {paths_needed(level):,} paths; there are {paths:,}.")
