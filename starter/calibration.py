"""Write the pages that ship with the exporter: some to calibrate with, one question each, and some to measure with.

    python -m starter.calibration

Fonts, words and seeds are those of training; no page of the evaluation is among them. Pages to measure with carry all
their questions.
"""

from __future__ import annotations

import random
from pathlib import Path

from . import layouts

EXPORTER = Path(__file__).parent.parent / "export" / "edge_mllm_export" / "calibrate"
FIRST_SEED, PAGES = 800_000, 48
MEASURING_SEED, MEASURING_PAGES = 820_000, 64
QUALITY = 85


def main() -> None:
    """Draw the pages and their lists of questions."""
    write(EXPORTER / "calibration_pages", FIRST_SEED, PAGES, every_question=False)
    write(EXPORTER / "measuring_pages", MEASURING_SEED, MEASURING_PAGES, every_question=True)


def write(target: Path, first_seed: int, pages: int, *, every_question: bool) -> None:
    """Write one set in place of an older one."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    lines = []
    for number in range(pages):
        page = layouts.make_page(first_seed + number, heldout=False)
        asked = page.questions if every_question else (random.Random(number).choice(page.questions),)
        name = f"page{number:02}.jpg"
        page.image.save(target / name, "JPEG", quality=QUALITY, optimize=True)
        lines += [f"{name}\t{question.text}\n" for question in asked]
    (target / "questions.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
