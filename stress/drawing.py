"""The looks of all pictures: colours, axes, legends, files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
"""The palette of Okabe and Ito: told apart with any colour vision."""
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)
"""In which order several lines or bars of one picture take them."""
GREY = "#555555"


def save(fig: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write a picture as PNG and as SVG; the same figure gives the same bytes.

    Args:
        fig: The picture.
        path: Name of the files; `.png` and `.svg` are put in place of its suffix or added.

    Returns:
        The two files.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    fig.savefig(png, dpi=150)
    with mpl.rc_context({"svg.hashsalt": "liqstress"}):
        fig.savefig(svg, metadata={"Date": None})
    return png, svg


def axes_of(ax: Axes | None, title: str) -> Axes:
    """The axes to draw on, made if there are none, in the house's looks.

    Margins are fixed: automatic layouts differ in the last bit from one time to the next, and so would the files.
    """
    if ax is None:
        fig = Figure(figsize=(6.5, 4.4))
        fig.subplots_adjust(left=0.14, right=0.96, bottom=0.13, top=0.82)
        FigureCanvasAgg(fig)
        ax = fig.subplots()
    ax.set_title(title, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    return ax


def hold(values: np.ndarray) -> np.ndarray:
    """Values of hours at the edges of hours, for steps."""
    return np.append(values, values[-1])


def plain_log(ax: Axes, which: str, scale: float = 1) -> None:
    """Write 0.01, 1, 1,000 instead of powers on a log axis, times `scale`."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(ax: Axes, *entries: object, ncols: int) -> None:
    """A legend between the title and the picture, where it hides nothing; the title moves up to make room."""
    place: dict[str, object] = {"loc": "lower left", "bbox_to_anchor": (-0.015, 0.985), "ncols": ncols}
    looks = {"fontsize": 9, "frameon": False, "columnspacing": 1.2, "handlelength": 1.5}
    made = ax.legend(*entries, **place, **looks)  # type: ignore[arg-type]
    lines = -(-len(made.get_texts()) // ncols)
    ax.set_title(ax.get_title(loc="left"), loc="left", fontsize=11.5, pad=9 + 15 * lines)
