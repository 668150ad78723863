"""Pages put together and made into HTML by Sphinx."""

from __future__ import annotations

import importlib.metadata
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from stress.manual.commands import commands_page
from stress.manual.keys import key_pages
from stress.manual.markdown import toctree
from stress.manual.names import names_page
from stress.manual.outputs import variables_page
from stress.spec import InputError

PAGES = Path(__file__).with_name("pages")
"""What is written, and the looks."""
_ORDER = ("model", "config", "files", "commands", "variables", "python", "glossary")
_ROOT = Path(__file__).parents[2]
_HERE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")
"""A link of Markdown to a file of the repository; pictures begin with `!`."""
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_LOOKS = {
    "description": "Stress tests for leveraged crypto markets",
    "fixed_sidebar": True,
    "page_width": "1200px",
    "sidebar_width": "240px",
    "show_powered_by": False,
    "font_family": "system-ui, sans-serif",
}


def build(out: Path, application: Any) -> str:
    """Write the manual as HTML.

    Args:
        out: Folder to write to: new, empty, or with an earlier manual in it.
        application: The group of commands of the command line.

    Returns:
        What Sphinx warns of, dead links among it; nothing, if all is well.

    Raises:
        InputError: Sphinx is not installed, or something else is in the folder.
    """
    try:
        import myst_parser  # noqa: F401
        import sphinx  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, which makes the manual. Install it: pip install 'liqstress[docs]'."
        ) from None
    if out.is_dir() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise InputError(f"--out is {out}, expected a new or an empty folder, or one with a manual. Give another.")
    out.mkdir(parents=True, exist_ok=True)
    (out / ".buildinfo").touch()  # What cannot be written is said now.
    with tempfile.TemporaryDirectory() as made:
        source, html = Path(made, "source"), Path(made, "html")
        write_sources(source, application)
        warnings = _sphinx(source, html)
        shutil.copytree(html, out, dirs_exist_ok=True)
    return warnings


def write_sources(folder: Path, application: Any) -> None:
    """All pages as Markdown: written ones, made ones, and the README with the list of pages as the front."""
    shutil.copytree(PAGES, folder)
    keys = key_pages()
    inner = [name for name in keys if name != "config"]
    pages = {
        "index": f"{front(folder)}\n{toctree(_ORDER, hidden=True)}",
        **keys,
        "config": f"{keys['config']}\n{toctree(inner)}",
        "commands": commands_page(application),
        "variables": variables_page(),
        "python": names_page(),
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def front(folder: Path) -> str:
    """The README: of the repository with its pictures, which go to `folder`; of an installed package without."""
    in_repository = (_ROOT / "pyproject.toml").exists()
    if in_repository:
        text = (_ROOT / "README.md").read_text(encoding="utf-8")
    else:
        text = importlib.metadata.metadata("liqstress")["Description"]

    def here(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if not picture:
            return words  # The file is not part of the manual.
        if not in_repository:
            return ""
        shutil.copy(_ROOT / target, folder / Path(target).name)
        return f"![{words}]({Path(target).name})"

    return _HERE.sub(here, text)


def _sphinx(source: Path, html: Path) -> str:
    """Run Sphinx; what it warns of."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    version, warnings = importlib.metadata.version("liqstress"), io.StringIO()
    settings = {
        "project": "liqstress",
        "version": version,
        "release": version,
        "extensions": ["myst_parser", "stress.manual.mathml"],
        "html_math_renderer": "mathml",
        "html_theme": "alabaster",
        "html_theme_options": _LOOKS,
        "html_static_path": ["static"],
        "html_css_files": ["manual.css"],
        "html_show_copyright": False,
        "html_show_sphinx": False,
        "html_copy_source": False,
        "html_use_index": False,
        "highlight_language": "none",
        "myst_enable_extensions": ["attrs_inline", "colon_fence"],
        "myst_heading_anchors": 2,
        "nitpicky": True,
        "smartquotes": False,
    }
    with patch_docutils(), docutils_namespace():
        application = Sphinx(
            srcdir=source, confdir=None, outdir=html, doctreedir=html.with_name("doctrees"), buildername="html",
            confoverrides=settings, status=None, warning=warnings, freshenv=True,
        )  # fmt: skip
        application.build()
    return _COLOURS.sub("", warnings.getvalue()).replace(f"{source}/", "")
