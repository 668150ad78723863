"""The figures of a report, drawn from the numbers in the tables below them, as SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stress.drawing import BLACK, BLUE, ORANGE, SKY, VERMILION, axes_of, hold, legend, plain_log
from stress.report.language import Language
from stress.report.quantities import Fact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MILLION = 1e6
_WIDE = 20
"""Ratio of largest to smallest from which an axis is logarithmic."""
_WIDTH = 6.6
"""Of the text on a page [inch]."""


def _axes(height: float, left: float = 0.13, top: float = 0.45, title: str = "") -> Axes:
    """Axes as wide as the text; margins in inches above and below are the same at every height."""
    fig = Figure(figsize=(_WIDTH, height))
    fig.subplots_adjust(left=left, right=0.97, bottom=0.52 / height, top=1 - top / height)
    FigureCanvasAgg(fig)
    return axes_of(fig.subplots(), title)


def _beside(labels: Sequence[str]) -> float:
    """Room at the left for names of rows, as a share of the width."""
    return min(0.02 + 0.0135 * max(map(len, labels), default=0), 0.45)


def svg(ax: Axes, name: str) -> str:
    """The picture as an SVG element; the same picture gives the same text, and no id stands in two pictures."""
    figure, out = ax.figure, io.StringIO()
    assert isinstance(figure, Figure)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)


def fan(lines: Sequence[Sequence[Fact]], words: dict[str, str], language: Language, name: str) -> str:
    """Quantiles over paths of each hour's volume: lines of facts, the lowest quantile first."""
    ax = _axes(2.9)
    edges = np.arange(len(lines[0]) + 1)
    shown = [fact.value for line in lines for fact in line if fact.value > 0]
    # At least three decades: within one the axis would have no labels.
    floor = max(min(min(shown), max(shown) * 1e-3), max(shown) * 1e-6) / _MILLION if shown else 1e-3
    for line, colour, label in zip(lines, (BLUE, ORANGE, VERMILION), ("fan_q50", "fan_q95", "fan_q99"), strict=True):
        value, low, high = _ends(line)
        top = np.where(np.isfinite(high), high, value)
        ax.fill_between(edges, hold(np.maximum(low, floor)), hold(np.maximum(top, floor)), step="post", color=colour,
                        alpha=0.25, lw=0)  # fmt: skip
        ax.step(edges, hold(np.maximum(value, floor)), where="post", color=colour, lw=1.6, label=words[label])
    ax.set_yscale("log")
    _plain(ax, "y", language)
    ax.set(xlim=(0, edges[-1]), xlabel=words["x"], ylabel=words["y"])
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 3, 6, 10], integer=True))
    legend(ax, ncols=3)
    return svg(ax, name)


def exceedance(facts: Sequence[Fact], words: dict[str, str], language: Language, name: str) -> str:
    """Share of hours above a volume, with its interval; `words["mark"]` is said at the threshold `words["at"]`."""
    ax = _axes(2.9)
    seen = [fact for fact in facts if fact.value > 0]
    if seen:
        x = np.array([float(fact.item) for fact in seen]) / _MILLION
        value, low, high = (_MILLION * ends for ends in _ends(seen))
        floor = value.min() / 3
        ax.fill_between(x, np.maximum(low, floor), high, color=SKY, alpha=0.45, lw=0, label=words["interval"])
        ax.plot(x, value, "o-", color=BLUE, lw=1.6, ms=4)
        ax.set(xscale="log", yscale="log", ylim=(floor, 1))
        _plain(ax, "x", language)
        _plain(ax, "y", language, 100)
        at = float(words["at"]) / _MILLION
        if at >= x[0]:
            ax.axvline(at, color=VERMILION, lw=1.2, ls="--")
            ax.set_xlim(right=max(x[-1], at) * 1.6)
            ax.annotate(words["mark"], (at, 0.95), xycoords=("data", "axes fraction"), xytext=(-5, 0), fontsize=9,
                        textcoords="offset points", color=VERMILION, ha="right", va="top")  # fmt: skip
        legend(ax, ncols=1)
    ax.set(xlabel=words["x"], ylabel=words["y"])
    return svg(ax, name)


def bars(facts: Sequence[Fact], labels: Sequence[str], words: dict[str, str], language: Language, name: str) -> str:
    """A bar a fact with its interval, and the number beside it."""
    ax = _axes(0.75 + 0.3 * len(facts), left=_beside(labels), top=0.12)
    value, low, high = _ends(facts)
    rows = np.arange(len(facts))
    spread = np.nan_to_num(np.maximum([value - low, high - value], 0.0), posinf=0.0)
    ax.barh(rows, value, xerr=spread, color=BLUE, height=0.6, ecolor=BLACK, capsize=2, error_kw={"lw": 1})
    reach = float(np.max(value + spread[1], initial=0.0)) or 1.0
    for row, fact, end in zip(rows, facts, value + spread[1], strict=True):
        ax.annotate(language.value(fact), (end + 0.015 * reach, row), fontsize=9, va="center")
    _rows(ax, labels)
    ax.set(xlim=(0, 1.16 * reach), xlabel=words["x"])
    _thousands(ax, language)
    return svg(ax, name)


def sizes(
    have: Sequence[Fact], need: Sequence[Fact], labels: Sequence[str], words: dict[str, str], language: Language,
    name: str,
) -> str:  # fmt: skip
    """Each fund's size and the size that it needs, on a log scale where they differ much."""
    ax = _axes(1.15 + 0.38 * len(have), left=_beside(labels))
    rows = np.arange(len(have))
    value, low, high = _ends(need)
    size = _ends(have)[0]
    positive = np.concatenate([x[np.isfinite(x) & (x > 0)] for x in (value, low, high, size)])
    floor = positive.min() / 2 if positive.size else 0.1
    ends = np.maximum(low, floor), np.where(np.isfinite(high), high, value)
    ax.hlines(rows, ends[0], np.maximum(ends[1], floor), color=VERMILION, lw=5, alpha=0.35)
    ax.plot(np.maximum(value, floor), rows, "D", color=VERMILION, ms=6, label=words["need"])
    ax.plot(np.maximum(size, floor), rows, "|", color=BLUE, ms=18, mew=3, label=words["have"])
    _rows(ax, labels)
    ax.set(xlabel=words["x"])
    if positive.size and positive.max() > _WIDE * positive.min():
        ax.set(xscale="log")
        _plain(ax, "x", language)
    else:
        ax.set_xlim(left=0)
        _thousands(ax, language)
    legend(ax, ncols=2)
    return svg(ax, name)


def changes(facts: Sequence[Fact], labels: Sequence[str], words: dict[str, str], language: Language, name: str) -> str:
    """Paired differences with their intervals, a row a policy."""
    ax = _axes(0.75 + 0.34 * len(facts), left=_beside(labels), top=0.12)
    value, low, high = _ends(facts)
    spread = np.maximum([value - low, high - value], 0.0)
    ax.errorbar(value, np.arange(len(facts)), xerr=spread, fmt="o", color=BLUE, ms=5, lw=1.6, capsize=3)
    ax.axvline(0, color=BLACK, lw=0.8)
    _rows(ax, labels)
    ax.set(xlabel=words["x"])
    _thousands(ax, language)
    return svg(ax, name)


def line(x: Sequence[float], y: Sequence[float], words: dict[str, str], language: Language, name: str) -> str:
    """Points joined in the order of x."""
    ax = _axes(2.7, top=0.15)
    order = np.argsort(x, kind="stable")
    ax.plot(np.asarray(x)[order], np.asarray(y)[order], "o-", color=BLUE, lw=1.6, ms=5)
    ax.set(xlabel=words["x"], ylabel=words["y"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: language.digits(f"{value:,.6g}")))
    return svg(ax, name)


def _ends(facts: Sequence[Fact]) -> np.ndarray:
    """Value, low and high of each in millions: [3 fact]; ends are the value where there is no interval."""
    rows = []
    for fact in facts:
        e = fact.estimate
        low, high = (e.value, e.value) if math.isnan(e.low) else (e.low, e.high)
        rows.append((e.value, low, high))
    return np.array(rows, dtype=np.float64).reshape(-1, 3).T / _MILLION


def _rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), list(labels))
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(False, axis="y")


def _plain(ax: Axes, which: str, language: Language, scale: float = 1) -> None:
    """As `plain_log`, with the language's separators."""
    plain_log(ax, which, scale)
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: language.digits(f"{scale * value:,.10g}")))


def _thousands(ax: Axes, language: Language) -> None:
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: language.digits(f"{value:,.6g}")))
    ax.xaxis.set_major_locator(MaxNLocator(6))
