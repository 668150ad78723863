"""Equations as MathML, which browsers draw by themselves: Sphinx' own ways want a network, LaTeX or a script.

The conversion is that of docutils, which Sphinx needs anyway.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)
_BARS = re.compile(r"<mo(?: stretchy=\"false\")?>\|</mo>(.*?)<mo(?: stretchy=\"false\")?>\|</mo>", re.DOTALL)
"""Bars of an absolute value: without a form they are set apart like an operator."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Make it one of Sphinx' ways."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_converted(node))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_converted(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _converted(node: nodes.Element, *, as_block: bool = False) -> str:
    """MathML of a node, or its LaTeX and a warning where that cannot be converted."""
    try:
        made = tex2mathml(node.astext(), as_block=as_block)
        return _BARS.sub(r'<mo form="prefix">|</mo>\1<mo form="postfix">|</mo>', made)
    except MathError as error:
        _log.warning("%s: %s", error, node.astext(), location=node)
        return html.escape(node.astext())
