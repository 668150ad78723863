"""What the command line shows of a pilot and of splitting, and the files that it writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stress.console import as_toml, console, figures_table
from stress.pilot import Pilot
from stress.risk import percent, span
from stress.sampling import Importance, Tilt
from stress.spec import RunError
from stress.splitting import Split, over_islands


def show_pilot(found: Pilot, title: str) -> None:
    """Print the turns of a pilot, and what its tilts are."""
    turns = figures_table(title, "turn", "drawn from", "elite from", "with the event", "chance", "95 % interval")
    for i, turn in enumerate(found.turns):
        drawn = f"{turn.ways} tilt{'s' if turn.ways > 1 else ''}"
        chance = percent(turn.chance.value), span(turn.chance, percent)
        turns.add_row(str(i + 1), drawn, f"{turn.level:.3g}", f"{turn.reached:,}", *chance)
    out = console()
    out.print(turns)
    tilts = figures_table("tilts", "", "share", "a day", "sizes")
    tilts.add_row("the shock itself", percent(found.sampling.nominal), "", "")
    for i, tilt in enumerate(found.sampling.tilts):
        for j, (name, per_day, sizes) in enumerate(_parts(tilt)):
            tilts.add_row(
                f"{i + 1}: {name}" if j == 0 else f"   {name}", "" if j else percent(tilt.share), per_day, sizes
            )
    out.print(tilts)


def _parts(tilt: Tilt) -> list[tuple[str, str, str]]:
    laws = ({} if tilt.common is None else {"common": tilt.common}) | tilt.own
    parts = [
        (name, f"{law.per_day:.3g}", ", ".join(f"{key} {value:.3g}" for key, value in law if key != "per_day"))
        for name, law in laws.items()
    ]
    if tilt.drift_per_day:
        parts.append(("drift", "", ", ".join(f"{asset} {drift:+.3g}" for asset, drift in tilt.drift_per_day.items())))
    return parts or [("nothing", "", "")]


def tilts_as_toml(sampling: Importance, source: str) -> str:
    """The file of tilts that a config's `sampling` may name."""
    table = sampling.model_copy(update={"source": source}).model_dump(mode="json", exclude_none=True)
    tilts = [{key: value for key, value in tilt.items() if value != {}} for tilt in table.pop("tilts")]
    return as_toml(table) + "".join("\n[[tilts]]\n" + as_toml(tilt).replace("\n[", "\n[tilts.") for tilt in tilts)


def show_split(found: Split, words: Sequence[str], title: str) -> None:
    """Print the chance of every level, and what the last one's is worth."""
    chances = [over_islands(row) for row in found.chances]
    table = figures_table(title, "level", "chance", "95 % interval", "of those before", "moves that stay")
    for i, (chance, name) in enumerate(zip(chances, words, strict=True)):
        before = chances[i - 1].value if i else 1.0
        stay = percent(float(found.taken[i].mean())) if i < len(found.taken) else ""
        table.add_row(name, percent(chance.value), span(chance, percent), percent(chance.value / before), stay)
    out = console()
    out.print(table)
    size = f"{found.chances.shape[1]} islands, from {found.origins:,} paths at the start"
    out.print(f"event    seen in {np.sum(found.chances[-1] > 0)} of {size}", soft_wrap=True)
    worth = f"{found.plain:.2g} plain paths, {found.hits:.0f} of them with the event"
    out.print(f"worth    {worth}: {found.plain / found.paths:,.2g} times the {found.paths:,} simulated", soft_wrap=True)


def write_split(found: Split, words: Sequence[str], file: Path) -> None:
    """Write the chance of every level as CSV, in all and by island."""
    islands = [f"island_{i + 1}" for i in range(found.chances.shape[1])]

    def row(i: int) -> list[object]:
        chance = over_islands(found.chances[i])
        stay = f"{found.taken[i].mean():.6g}" if i < len(found.taken) else ""
        numbers = (found.levels[i], chance.value, chance.low, chance.high, *found.chances[i])
        level, *rest = (f"{x:.8g}" for x in numbers)
        return [words[i], level, *rest[:3], stay, *rest[3:]]

    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["words", "level", "chance", "low", "high", "moves_that_stay", *islands])
            writer.writerows(row(i) for i in range(len(found.levels)))
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another place, or mend this one.") from error
