"""What a report looks like: our templates, or those of a folder, and a logo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stress.report.language import packaged
from stress.spec import InputError

TEMPLATES = ("report.html.j2", "report.typ", "style.css")
FONTS = "fonts"
"""Folder of font files for the PDF, within that of templates."""
LOGOS = (".png", ".svg", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Templates:
    """Where templates come from."""

    folder: Path | None = None
    logo: Path | None = None

    @property
    def fonts(self) -> list[Path]:
        """Folders of fonts beside those that come with the program."""
        return [self.folder / FONTS] if self.folder is not None and (self.folder / FONTS).is_dir() else []

    def name(self, name: str) -> str:
        """What to call a template in a message."""
        own = self._own(name)
        return name if own is None else str(own)

    def text(self, name: str) -> str:
        """A template: the folder's, where it has one."""
        own = self._own(name)
        if own is None:
            return packaged("templates", name).decode("utf-8")
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{own}: cannot be read ({error}). Give a readable file.") from None

    def _own(self, name: str) -> Path | None:
        return self.folder / name if self.folder is not None and (self.folder / name).is_file() else None


def read_templates(folder: str | Path | None, logo: str | Path | None) -> Templates:
    """Templates of a folder, after a look at whether it holds any.

    Raises:
        InputError: There is no such folder, it holds something that is no template, or the logo is no picture.
    """
    place, picture = (None if given is None else Path(given) for given in (folder, logo))
    if place is not None:
        if not place.is_dir():
            raise InputError(f"{place}: there is no such folder. Give the folder of your templates.")
        known = {*TEMPLATES, FONTS}
        names = [file.name for file in place.iterdir() if file.suffix != ".toml" and not file.name.startswith(".")]
        odd = sorted(set(names) - known)
        if odd:
            raise InputError(
                f"{place / odd[0]}: is no template, expected {', '.join(TEMPLATES)}, LANGUAGE.toml or {FONTS}/. "
                "Rename it, or take it out of the folder."
            )
    if picture is not None and (picture.suffix.lower() not in LOGOS or not picture.is_file()):
        raise InputError(f"{picture}: is no picture, expected an existing {', '.join(LOGOS)} file. Give one.")
    return Templates(place, picture)
