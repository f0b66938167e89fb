"""Rows of any reader become questions, by the layout's columns; a row that cannot names its reason."""

from __future__ import annotations

import ast
import hashlib
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mllm.measure.eval.pictures import FilePicture
from edge_mllm.measure.eval.readers.layouts import FORMULAS, OCRBENCH_CATEGORIES, Layout
from edge_mllm.measure.eval.tasks import LETTERS, BrokenRow, Question, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_mllm.measure.eval.pictures import Picture
    from edge_mllm.measure.eval.readers.rows import Row, RowFile

CIRCULAR = 1_000_000
"""VLMEvalKit writes the rotated copies of question i as rows i + n * 1,000,000 (MMBench's CircularEval)."""
_INLINE_OPTION = re.compile(r"\(([A-Ia-i])\)\s*(.*?)(?=\s*\([A-Ia-i]\)|\n|$)", re.DOTALL)
_LABEL = re.compile(r"^\s*\(?([A-Ia-i])[).:]\s+")
_PLACEHOLDER = re.compile(r"\s*<(?:image|img)>\s*")


class _BadRow(Exception):  # noqa: N818  (never leaves this module)
    """Why a row cannot be asked."""


def make_task(file: RowFile, layout: Layout, images: Path | None = None) -> Task:
    """Turn rows into a task; ``images`` is a further folder to look for picture files in."""
    roots = [*([images] if images else []), file.root, *(file.root / folder for folder in layout.folders)]
    roots += [file.root / "images", file.root / f"{file.name}_images"]
    questions: list[Question] = []
    broken: list[BrokenRow] = []
    seen: set[str] = set()
    for row in file.rows:
        index = _unique(_index(row, layout), seen)
        try:
            questions.append(_question(index, row, layout, roots))
        except _BadRow as error:
            broken.append(BrokenRow(index, str(error)))
    return Task(
        name=file.name,
        layout=layout.name,
        sha256=file.sha256,
        scorer=_default_scorer(questions, layout),
        questions=tuple(questions),
        broken=tuple(broken),
    )


def _question(index: str, row: Row, layout: Layout, roots: list[Path]) -> Question:
    if row.problem:
        raise _BadRow(row.problem)
    if "video" in str(row.values.get("data_type", "")).lower():
        raise _BadRow("is about a video")
    text = _text(_first(row.values, layout.question))
    if not text:
        raise _BadRow("has no question")
    options, answers = _options(row.values, layout), _answers(row.values, layout)
    if layout.first_is_right and options:
        options, answers = _shuffle(index, options)
    if not answers:
        raise _BadRow("has no answer")
    if options:
        answers = (_letter(answers[0], options, layout.answer_is_text),)
    category = _text(_first(row.values, layout.category))
    return Question(
        index=index,
        text=_PLACEHOLDER.sub("\n", text).strip(),
        answers=answers,
        pictures=_pictures(row, layout, roots),
        options=options,
        options_in_text=bool(options) and layout.option_column == layout.question,
        hint=_text(row.values.get("hint")),
        category=category,
        l2_category=_text(_first(row.values, layout.l2_category)),
        group=_group(index, row, layout, bool(options)),
        scorer=_row_scorer(category, row.values, layout, bool(options)),
        precision=_precision(row.values),
        objects=row.objects,
    )


def _first(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first non-empty value; ``a.b`` looks into a nested object."""
    for name in names:
        value: Any = values.get(name)
        if value is None and "." in name:
            outer, _, inner = name.partition(".")
            nested = values.get(outer)
            value = nested.get(inner) if isinstance(nested, dict) else None
        if value is not None and value not in ("", []):
            return value
    return None


def _text(value: Any) -> str:
    """A cell as text; pandas writes missing cells as nan."""
    if value is None or value != value:  # noqa: PLR0124  (NaN is not equal to itself)
        return ""
    text = str(value).strip()
    return "" if text == "nan" else text


def _list(value: Any) -> list[str]:
    """A cell as a list: a real one, the printed form of one, or a single value."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            return [value.strip()]
    entries = value if isinstance(value, list | tuple) else [value]
    return [text for entry in entries if (text := _text(entry))]


def _index(row: Row, layout: Layout) -> str:
    """The row's name: its index column, several joined, or its number."""
    if layout.name == "vstar-jsonl":
        return "/".join(_text(row.values.get(name)) for name in layout.index)
    return _text(_first(row.values, layout.index)) or str(row.number)


def _unique(index: str, seen: set[str]) -> str:
    """Tell apart rows that share a name (two questions about one picture)."""
    name, count = index, 1
    while name in seen:
        count += 1
        name = f"{index}#{count}"
    seen.add(name)
    return name


def _options(values: Mapping[str, Any], layout: Layout) -> tuple[str, ...]:
    for style in layout.options:
        if style == "letters":
            found = [_text(values.get(letter)) for letter in LETTERS]
        elif style == "choice_letters":
            found = [_text(values.get(f"choice_{letter.lower()}")) for letter in LETTERS]
        elif style == "list":
            found = [_LABEL.sub("", entry) for entry in _list(_first(values, layout.option_column))]
        else:
            text = _text(_first(values, layout.option_column))
            found = [match.group(2).strip() for match in _INLINE_OPTION.finditer(text)]
        # Sets with fewer options leave the last columns empty.
        kept = found[: next((i for i, option in enumerate(found) if not option), len(found))]
        if len(kept) > 1:
            return tuple(kept[: len(LETTERS)])
    return ()


def _answers(values: Mapping[str, Any], layout: Layout) -> tuple[str, ...]:
    value = _first(values, layout.answer)
    if values.get("answer_type") == "list":  # MathVista: the list is the answer, not a choice of answers
        return (_text(value),) if _text(value) else ()
    return tuple(_list(value))


def _letter(answer: str, options: tuple[str, ...], text_first: bool) -> str:
    """The right option's letter, from its letter, ``(b)``, ``B. text`` or its text."""
    letters = LETTERS[: len(options)]
    bare = answer.strip().strip("().:").upper()
    by_letter = bare if len(bare) == 1 and bare in letters else ""
    lowered = [option.casefold() for option in options]
    by_text = letters[lowered.index(answer.casefold())] if answer.casefold() in lowered else ""
    found = (by_text or by_letter) if text_first else (by_letter or by_text)
    if not found and (label := _LABEL.match(answer)) and label.group(1).upper() in letters:
        found = label.group(1).upper()
    if not found:
        raise _BadRow(f"its answer {answer!r} is none of its options")
    return found


def _shuffle(index: str, options: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Move the right option (the first) to a place that depends on the question alone."""
    seed = int.from_bytes(hashlib.sha256(index.encode()).digest()[:8], "big")
    order = list(range(len(options)))
    random.Random(seed).shuffle(order)  # noqa: S311
    return tuple(options[i] for i in order), (LETTERS[order.index(0)],)


def _pictures(row: Row, layout: Layout, roots: list[Path]) -> tuple[Picture, ...]:
    for name in layout.picture:
        if row.pictures.get(name):
            return row.pictures[name]
        if names := _list(row.values.get(name)):
            return tuple(_find(entry, roots) for entry in names)
    if layout.picture_path:
        return (_find(layout.picture_path.format_map({k: _text(v) for k, v in row.values.items()}), roots),)
    numbered = [name for i in range(1, 8) if (name := f"image_{i}") in row.pictures]
    if numbered:
        return tuple(picture for name in numbered for picture in row.pictures[name])
    raise _BadRow("has no picture")


def _find(name: str, roots: list[Path]) -> Picture:
    """Find a picture file under one of the roots, with or without its suffix or its folders."""
    tried = [root / candidate for root in roots for candidate in dict.fromkeys((name, f"{name}.jpg", Path(name).name))]
    for path in tried:
        if path.is_file():
            return FilePicture(path)
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    raise _BadRow(f"its picture '{shown}' is missing (looked in {', '.join(map(str, dict.fromkeys(roots[:3])))}, ...)")


def _group(index: str, row: Row, layout: Layout, has_options: bool) -> str:
    if layout.group == "pairs":
        return str((row.number - 1) // 2)
    if layout.group == "picture" and has_options:
        return str(int(index) % CIRCULAR) if index.isdecimal() else ""
    if layout.group == "picture":
        return _text(row.values.get("image_path")) or row.same_picture or _text(row.values.get("image"))
    return ""


def _row_scorer(category: str, values: Mapping[str, Any], layout: Layout, has_options: bool) -> str:
    if has_options:
        return ""
    if layout.scorer == "yes_no" and isinstance(values.get("truth"), list):
        return "objects"
    if category == FORMULAS or values.get("dataset_name") == "HME100k":
        return "contains_formula"
    if layout.scorer == "number" and values.get("answer_type") not in ("integer", "float"):
        return "exact"
    return layout.scorer


def _precision(values: Mapping[str, Any]) -> int | None:
    if values.get("answer_type") == "integer":
        return 0
    text = _text(values.get("precision"))
    try:
        return int(float(text)) if text else None
    except ValueError:
        return None


def _default_scorer(questions: list[Question], layout: Layout) -> str:
    """What the rows look like: options, yes or no, a known set, or an open answer."""
    if questions and all(q.options for q in questions):
        return "choice"
    if layout.scorer:
        return layout.scorer
    free = [q for q in questions if not q.options]
    if free and all(q.answers[0].casefold() in ("yes", "no") for q in free):
        return "yes_no"
    if free and {q.category for q in free} <= OCRBENCH_CATEGORIES:
        return "contains"
    return "exact"
