"""Write core's table of Unicode general categories, as the tokenizers library's own regex engine has them.

    python android_demo/tools/unicode_table.py

Java's Character.getType knows another version of Unicode on every phone, and token ids must not depend on the phone.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

CATEGORIES = (
    *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"),
    *("Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs", "Cn"),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcd"
TARGET = Path(__file__).resolve().parents[1] / "core/src/org/edgemllm/text/UnicodeTable.java"
_LAST = 0x10FFFF
_WIDTH = 100
_TEMPLATE = """package org.edgemllm.text;

/** Made by tools/unicode_table.py: runs of code points, a letter for the category and how many. */
final class UnicodeTable {
    /** The categories in the order of their letters. */
    static final String[] NAMES = {
NAMES};
    static final String RUNS =
RUNS;

    private UnicodeTable() {
    }
}
"""


def categories() -> bytearray:
    """The number of the category of every code point; surrogates are no characters and have their own."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    points = [point for point in range(_LAST + 1) if not 0xD800 <= point <= 0xDFFF]
    text = "".join(map(chr, points))
    found = bytearray([CATEGORIES.index("Cn")]) * (_LAST + 1)
    found[0xD800:0xE000] = bytes([CATEGORIES.index("Cs")]) * 0x800
    for number, name in enumerate(CATEGORIES):
        if name in ("Cs", "Cn"):
            continue
        split = Split(Regex(rf"\p{{{name}}}+"), behavior="removed", invert=True)
        for _, (start, end) in split.pre_tokenize_str(text):
            for place in range(start, end):
                found[points[place]] = number
    return found


def java(found: bytearray) -> str:
    """The class."""
    runs = "".join(f"{LETTERS[number]}{len(list(run))}" for number, run in groupby(found))
    lines = [runs[start : start + _WIDTH] for start in range(0, len(runs), _WIDTH)]
    text = "\n        + ".join(f'"{line}"' for line in lines)
    quoted = [f'"{name}"' for name in CATEGORIES]
    names = "".join(f"        {', '.join(quoted[start : start + 10])},\n" for start in range(0, len(quoted), 10))
    return _TEMPLATE.replace("NAMES};", names.rstrip(",\n") + "};").replace("RUNS;", f"        {text};")


def main() -> None:
    """Write the class."""
    TARGET.write_text(java(categories()), encoding="utf-8")
    sys.stdout.write(f"{TARGET.name}: {TARGET.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
