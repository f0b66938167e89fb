"""The fonts the pages are printed in: one list, with the Debian package of each family and its side of the split.

Families that are copies of one design (Carlito is Lato, Nimbus Sans is Liberation Sans, ...) are on one side together,
so that a held-out page never shows a letter form that training has seen under another name.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

FONT_ROOTS = ("/usr/share/fonts", "/usr/share/texmf/fonts", str(Path.home() / ".fonts"))


class Family(NamedTuple):
    """One type family: its files by name, and whether training may see it."""

    name: str
    package: str
    files: tuple[str, ...]
    heldout: bool = False


FAMILIES = (
    Family("C059", "fonts-urw-base35", ("C059-Roman.otf", "C059-Bold.otf")),
    Family("Comfortaa", "fonts-comfortaa", ("Comfortaa-Regular.ttf", "Comfortaa-Bold.ttf")),
    Family("DejaVu Sans", "fonts-dejavu", ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansCondensed.ttf")),
    Family("DejaVu Sans Mono", "fonts-dejavu", ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")),
    Family("DejaVu Serif", "fonts-dejavu", ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerifCondensed.ttf")),
    Family("FreeMono", "fonts-freefont-ttf", ("FreeMonoBold.ttf",)),
    Family("FreeSans", "fonts-freefont-ttf", ("FreeSans.ttf", "FreeSansBold.ttf")),
    Family("FreeSerif", "fonts-freefont-ttf", ("FreeSerif.ttf", "FreeSerifBold.ttf")),
    Family("Hack", "fonts-hack", ("Hack-Regular.ttf", "Hack-Bold.ttf")),
    Family("Inconsolata", "fonts-inconsolata", ("Inconsolata.otf",)),
    Family("JetBrains Mono", "fonts-jetbrains-mono", ("JetBrainsMono-Regular.ttf", "JetBrainsMono-Bold.ttf")),
    Family("League Spartan", "fonts-league-spartan", ("LeagueSpartan-Regular.otf", "LeagueSpartan-Bold.otf")),
    Family("Liberation Mono", "fonts-liberation2", ("LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf")),
    Family("Liberation Sans", "fonts-liberation2", ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf")),
    Family("Liberation Serif", "fonts-liberation2", ("LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf")),
    Family("Linux Biolinum", "fonts-linuxlibertine", ("LinBiolinum_R.otf", "LinBiolinum_RB.otf")),
    Family("Linux Libertine", "fonts-linuxlibertine", ("LinLibertine_R.otf", "LinLibertine_RB.otf")),
    Family("Nimbus Sans Narrow", "fonts-urw-base35", ("NimbusSansNarrow-Regular.otf", "NimbusSansNarrow-Bold.otf")),
    Family("Open Sans", "fonts-open-sans", ("OpenSans-Regular.ttf", "OpenSans-Semibold.ttf", "OpenSans-Bold.ttf")),
    Family("P052", "fonts-urw-base35", ("P052-Roman.otf", "P052-Bold.otf")),
    Family("Quicksand", "fonts-quicksand", ("Quicksand-Regular.ttf", "Quicksand-Bold.ttf")),
    Family("Roboto", "fonts-roboto-unhinted", ("Roboto-Regular.ttf", "Roboto-Medium.ttf", "Roboto-Bold.ttf")),
    Family("Roboto Condensed", "fonts-roboto-unhinted", ("RobotoCondensed-Regular.ttf", "RobotoCondensed-Bold.ttf")),
    Family("TeX Gyre Adventor", "fonts-texgyre", ("texgyreadventor-regular.otf", "texgyreadventor-bold.otf")),
    Family("TeX Gyre Cursor", "fonts-texgyre", ("texgyrecursor-bold.otf",)),
    Family("TeX Gyre Heros", "fonts-texgyre", ("texgyreheros-regular.otf", "texgyreheros-bold.otf")),
    Family("TeX Gyre Schola", "fonts-texgyre", ("texgyreschola-regular.otf", "texgyreschola-bold.otf")),
    Family("TeX Gyre Termes", "fonts-texgyre", ("texgyretermes-regular.otf", "texgyretermes-bold.otf")),
    Family("Caladea", "fonts-crosextra-caladea", ("Caladea-Regular.ttf", "Caladea-Bold.ttf"), heldout=True),
    Family("Cantarell", "fonts-cantarell", ("Cantarell-Regular.otf", "Cantarell-Bold.otf"), heldout=True),
    Family("Carlito", "fonts-crosextra-carlito", ("Carlito-Regular.ttf", "Carlito-Bold.ttf"), heldout=True),
    Family("Fira Code", "fonts-firacode", ("FiraCode-Regular.ttf", "FiraCode-Bold.ttf"), heldout=True),
    Family("Lato", "fonts-lato", ("Lato-Regular.ttf", "Lato-Semibold.ttf", "Lato-Bold.ttf"), heldout=True),
    Family("Oxygen Mono", "fonts-oxygen", ("OxygenMono-Regular.ttf",), heldout=True),
    Family("Oxygen Sans", "fonts-oxygen", ("Oxygen-Sans.ttf", "Oxygen-Sans-Bold.ttf"), heldout=True),
    Family("TeX Gyre Bonum", "fonts-texgyre", ("texgyrebonum-regular.otf", "texgyrebonum-bold.otf"), heldout=True),
)


@functools.lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """Map the name of every font file on this machine to its path."""
    found: dict[str, str] = {}
    for root in FONT_ROOTS:
        for folder, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                found.setdefault(name, os.path.join(folder, name))
    return found


@functools.lru_cache(maxsize=2)
def families(heldout: bool) -> tuple[tuple[str, ...], ...]:
    """Return the font paths of one side of the split, one tuple per family; those not installed drop out."""
    have = installed()
    chosen = (tuple(have[f] for f in family.files if f in have) for family in FAMILIES if family.heldout == heldout)
    result = tuple(paths for paths in chosen if paths)
    if not result:
        packages = " ".join(sorted({family.package for family in FAMILIES}))
        raise RuntimeError(f"no font of the list is installed; on Debian: apt-get install {packages}")
    return result


def has_both_sides() -> bool:
    """Tell whether pages of both sides of the split can be drawn here with every font of the list."""
    return all(file in installed() for family in FAMILIES for file in family.files)
