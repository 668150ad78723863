"""A document as PDF/A and PDF/UA, set by typst; the same document gives the same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import typst

from stress.report.document import Document, as_data
from stress.report.language import Language
from stress.report.looks import Templates
from stress.spec import InputError

STANDARDS: Any = ["a-2a", "ua-1"]
"""Archival with tags, and accessible."""


def pdf(document: Document, language: Language, templates: Templates) -> bytes:
    """The PDF, from the template `report.typ`, which reads the document as JSON.

    Raises:
        InputError: The template is wrong.
    """
    looks = _fonts(language)
    logo = templates.logo
    data = {**as_data(document), "language": language.code, "looks": looks, "logo": logo and f"logo{logo.suffix}"}
    files = {"main.typ": templates.text("report.typ").encode()}
    for block in (block for section in data["sections"] for block in section["blocks"]):
        if block["kind"] == "figure":
            files[f"{block['name']}.svg"] = block.pop("svg").encode()
    files["report.json"] = json.dumps(data, ensure_ascii=False).encode()
    if logo is not None:
        files[f"logo{logo.suffix}"] = logo.read_bytes()
    made: Any = _compile(files, datetime.fromisoformat(document.made).astimezone(UTC).replace(microsecond=0), templates)
    return made


def _compile(files: Any, moment: datetime, templates: Templates) -> Any:
    """The files, `main.typ` and what it reads, as PDF; without the system's fonts, which differ between machines."""
    try:
        return typst.compile(
            files, format="pdf", pdf_standards=STANDARDS, timestamp=moment, ignore_system_fonts=True,
            font_paths=[str(folder) for folder in templates.fonts],
        )  # fmt: skip
    except typst.TypstError as error:
        reason = " ".join([error.message, *error.hints]).replace("\n", " ")
        if templates.logo is not None and ("decode image" in reason or "parse SVG" in reason):
            raise InputError(f"{templates.logo}: {reason}. Give another picture.") from None
        raise InputError(f"{templates.name('report.typ')}: {reason}. Correct the template.") from None


def check_fonts(language: Language, templates: Templates) -> None:
    """`InputError` unless every font that the texts name is at hand."""
    paths: Any = [str(folder) for folder in templates.fonts]
    known = typst.Fonts(include_system_fonts=False, font_paths=paths).families()
    for name, font in _fonts(language).items():
        if font not in known:
            raise InputError(
                f"texts of language '{language.code}': looks.{name} is '{font}', expected one of {', '.join(known)}. "
                "Choose one, or put the font's file into fonts/ in the folder of templates."
            )


def _fonts(language: Language) -> dict[str, str]:
    return {name: language.text(f"looks.{name}") for name in ("font", "mono")}
