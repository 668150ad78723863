"""The numbers of a report for machines: CSV and JSON with a schema, by fields of public disclosures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from stress.report.frameworks import Field, fields, fields_of, framework_name
from stress.report.given import Sheet, number_of
from stress.report.quantities import METHODS, QUANTITIES, Fact, exactly

CONFIDENCE = 0.95
"""Of all intervals."""


class Row(BaseModel):
    """One number, for one field of one framework. A number for several fields has a row for each, with equal values."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """Unique: field, scenario, policy, venue, pool, item and quantity, joined by a bar."""
    framework: str
    """Standard that the field is of."""
    field: str
    """Number or name of the field; empty for numbers of no field."""
    quantity: str
    """Name of the quantity, the same in every report."""
    description: str
    """The quantity in words."""
    venue: str
    """Exchange; empty for all venues."""
    pool: str
    """Insurance fund as VENUE/NAME; empty where it is of none."""
    item: str
    """What else it is of: an asset, layer, hour, threshold in USD, measure, or row and column of a file."""
    scenario: str
    policy: str
    """Set of rules; empty where a run stands alone."""
    value: float | None
    """Absent where the runs cannot tell."""
    lower: float | None
    """Lower end of the interval; absent where there is none or it is open."""
    upper: float | None
    """Upper end of the interval; absent where there is none or it is open."""
    unit: str
    confidence: float | None
    """Of the interval; absent where there is none."""
    method: str
    """How value and interval were found."""
    source_variable: str
    """Variables of the run's dataset, or tables of its config."""


class Provenance(BaseModel):
    """How a run was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    config_file: str
    config_sha256: str | None
    seed: str
    version: str
    git_commit: str
    device: str
    end_time: str


class Disclosure(BaseModel):
    """All numbers of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: list[Provenance]
    rows: list[Row]


def rows_of(facts: Iterable[Fact], labels: dict[str, str], frontier: Sheet | None = None) -> list[Row]:
    """A row for each number and field; numbers of no field stand once, under the project's own name.

    Args:
        facts: Of the report.
        labels: Each quantity in words, in English.
        frontier: A file given to the report.
    """
    found = []
    for fact in [*facts, *_of_sheet(frontier)]:
        for field in fields_of(fact.quantity) or [None]:
            found.append(_row(fact, field, labels[fact.quantity]))
    return found


def _of_sheet(sheet: Sheet | None) -> Iterator[Fact]:
    for i, row in enumerate(sheet.rows if sheet else (), start=1):
        for column, text in zip(sheet.columns if sheet else (), row, strict=True):
            value = number_of(text)
            if value is not None:
                yield Fact("frontier", "", "", exactly(value), item=f"{i}:{column}")


def _row(fact: Fact, field: Field | None, label: str) -> Row:
    quantity, e = QUANTITIES[fact.quantity], fact.estimate
    return Row(
        id=f"{field.framework + ':' + field.field if field else 'own'}|{fact.key}",
        framework=framework_name(field.framework if field else "own"),
        field=field.field if field else "",
        quantity=fact.quantity,
        description=label,
        venue=fact.venue,
        pool=fact.pool,
        item=fact.item,
        scenario=fact.scenario,
        policy=fact.policy,
        value=_finite(e.value),
        lower=_finite(e.low),
        upper=_finite(e.high),
        unit=quantity.unit,
        confidence=CONFIDENCE if fact.has_interval else None,
        method=METHODS[quantity.method],
        source_variable=quantity.variable,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def files(runs: Sequence[Provenance], rows: Sequence[Row]) -> dict[str, bytes]:
    """The files of a disclosure, by name."""
    whole = Disclosure(runs=list(runs), rows=list(rows))
    given: dict[str, int] = {}
    for row in rows:
        key = f"{row.framework}|{row.field}"
        given[key] = given.get(key, 0) + 1
    mapped = [
        {"framework": framework_name(field.framework), "field": field.field, "checked": field.checked,
         "title": field.title, "applies": field.applies, "maps_to": field.maps_to,
         "quantities": " ".join(field.quantities),
         "rows": given.get(f"{framework_name(field.framework)}|{field.field}", 0), "reason": field.reason}
        for field in fields()
    ]  # fmt: skip
    return {
        "disclosure.csv": _csv([row.model_dump() for row in rows], list(Row.model_fields)),
        "disclosure.json": _json(whole.model_dump()),
        "schema.json": _json({"$schema": "https://json-schema.org/draft/2020-12/schema"} | whole.model_json_schema()),
        "mapping.csv": _csv(mapped, list(mapped[0])),
    }


def _csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    """Comma-separated, empty where there is nothing, numbers so that they read back to the last bit."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
