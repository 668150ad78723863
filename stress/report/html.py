"""A document as one HTML page with everything in it: no file beside it, no script, nothing from the network."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from stress.report.document import Document, as_data
from stress.report.language import Language
from stress.report.looks import Templates
from stress.spec import InputError

_KINDS = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def page(document: Document, language: Language, templates: Templates) -> str:
    """The page, from the template `report.html.j2` and the style in `style.css`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters["code"] = _with_code
    environment.filters["raw"] = Markup
    environment.filters["picture"] = _picture
    name = templates.name("report.html.j2")
    try:
        template = environment.from_string(templates.text("report.html.j2"))
        return template.render(
            document=as_data(document),
            language=language.code,
            style=Markup(templates.text("style.css")),
            logo=_data_uri(templates.logo),
        )
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{name}: line {error.lineno}: {error.message}. Correct the template.") from None
    except (jinja2.TemplateError, TypeError) as error:
        raise InputError(f"{name}: {error}. Correct the template.") from None


def _with_code(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    parts = text.split("`")
    spans = [escape(part) if i % 2 == 0 else Markup("<code>{}</code>").format(part) for i, part in enumerate(parts)]
    return Markup("").join(spans)


def _picture(svg: str, name: str, title: str, alternative: str) -> Markup:
    """A picture in the page, with its title and what there is to see for those who do not see it."""
    said = Markup('<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>').format(name, title, alternative)
    label = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    head, close, rest = svg.replace("<svg", label, 1).partition(">")
    return Markup(head + close) + said + Markup(rest)


def _data_uri(file: Path | None) -> str:
    if file is None:
        return ""
    return f"data:{_KINDS[file.suffix.lower()]};base64,{base64.b64encode(file.read_bytes()).decode()}"
