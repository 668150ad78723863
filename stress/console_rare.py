"""What the command line shows of a pilot, and the file of tilts that it writes."""

from __future__ import annotations

from stress.console import as_toml, console, figures_table
from stress.pilot import Pilot
from stress.risk import percent, span
from stress.sampling import Importance, Tilt


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
