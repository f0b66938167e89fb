"""Benchmark sets in the published layouts, written as their publishers do, about cards that the starter reads.

Every set asks four questions and has three right answers: the starter says "Yes" of the card YES and "No" of the card
NO, and the last row claims the opposite. Mixed up or missing pictures give another score than 75 %.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

YES, NO, TWELVE = "Yes", "No", "12"
ASKED = "What does it say?"
ROWS = ((YES, YES), (NO, NO), (NO, NO), (NO, YES))
"""What is on the card, and what the set says is right."""
LETTER = {YES: "A", NO: "B"}

Row = dict[str, Any]


def card(text: str) -> Image.Image:
    """Large dark letters on a white card."""
    image = Image.new("RGB", (192, 96), "white")
    ImageDraw.Draw(image).text((96, 48), text, fill="black", font=ImageFont.load_default(48), anchor="mm")
    return image


def write_card(path: Path, text: str) -> Path:
    """A card in a file; the suffix decides what kind of file; without one it is JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    card(text).save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)
    return path


def card_bytes(text: str) -> bytes:
    """A card as a PNG file."""
    stream = io.BytesIO()
    card(text).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class Layout:
    """A layout and rows in it; each row comes with the text of its card."""

    name: str
    rows: Callable[[], list[tuple[str, Row]]]
    published: Callable[[Path, Sequence[tuple[str, Row]]], Path] | None
    """Writes the set as it is published; None: it is published as one of the plain forms."""
    picture: str = "image"
    """The column of the picture in the plain forms; empty: files named by the row's index."""
    published_form: str = ""
    """The plain form that says no more than the published one."""


def as_tsv(folder: Path, layout: Layout, delimiter: str = "\t") -> Path:
    """A table as pandas writes it; base64 in columns that hold pictures, else paths."""
    rows = []
    for number, (text, row) in enumerate(layout.rows(), 1):
        cell = base64.b64encode(card_bytes(text)).decode()
        if layout.picture != "image":
            cell = _file(folder, layout, number, text)
        rows.append(row | ({layout.picture: cell} if layout.picture else {}))
    return write_table(folder / ("set.tsv" if delimiter == "\t" else "set.csv"), rows)


def as_json(folder: Path, layout: Layout) -> Path:
    """A list of objects with picture files beside it."""
    rows = [
        row | ({layout.picture: name} if layout.picture else {})
        for number, (text, row) in enumerate(layout.rows(), 1)
        if (name := _file(folder, layout, number, text))
    ]
    return write_json(folder / "set.json", rows)


def as_parquet(folder: Path, layout: Layout) -> Path:
    """As Hugging Face datasets write it: structs of bytes and path, in row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = layout.rows()
    columns = {name: [row.get(name) for _, row in found] for name in {name: 0 for _, row in found for name in row}}
    if layout.picture:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = [{"bytes": card_bytes(text), "path": None} for text, _ in found]
        columns[layout.picture] = pa.array(cells, type=kind)
    else:
        for number, (text, _) in enumerate(found, 1):
            _file(folder, layout, number, text)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "set.parquet", row_group_size=3)
    return folder / "set.parquet"


FORMS = {"tsv": as_tsv, "json": as_json, "parquet": as_parquet}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as .tsv or .csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, value: Any) -> Path:
    """A value as JSON, or as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in value) if lines else json.dumps(value), encoding="utf-8")
    return path


def _file(folder: Path, layout: Layout, number: int, text: str) -> str:
    name = f"card-{number}.png" if layout.picture else f"MMVP Images/{number}.jpg"
    write_card(folder / name, text)
    return name


def _seed_bench() -> list[tuple[str, Row]]:
    return [
        (
            text,
            {
                "question_id": str(number),
                "question": ASKED,
                "choice_a": YES,
                "choice_b": NO,
                "answer": LETTER[right],
                "data_type": "image",
                "question_type_id": 5,
            },
        )
        for number, (text, right) in enumerate(ROWS)
    ]


def _publish_seed_bench(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for number, (text, row) in enumerate(rows):
        write_card(folder / "SEED-Bench-image" / f"1454426_{number}", text)
        asked.append(row | {"data_id": f"1454426_{number}"})
    return write_json(folder / "SEED-Bench.json", {"question_type": {"Text Recognition": 5}, "questions": asked})


def _mme_realworld() -> list[tuple[str, Row]]:
    return [
        (
            text,
            {
                "Question_id": f"Perception/OCR/Sign/{number:04}",
                "Text": ASKED,
                "Answer choices": [f"(A) {YES}", f"(B) {NO}"],
                "Ground truth": LETTER[right],
                "Category": "Sign",
                "Subtask": "OCR",
            },
        )
        for number, (text, right) in enumerate(ROWS)
    ]


def _mmvp() -> list[tuple[str, Row]]:
    return [
        (text, {"Index": number, "Question": ASKED, "Options": "(a) Yes (b) No", "Correct Answer": f"({letter})"})
        for number, (text, right) in enumerate(ROWS, 1)
        for letter in [LETTER[right].lower()]
    ]


def _publish_mmvp(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    for text, row in rows:
        write_card(folder / "MMVP Images" / f"{row['Index']}.jpg", text)
    write_table(folder / "Questions.csv", [row for _, row in rows])
    return folder


def _q_bench() -> list[tuple[str, Row]]:
    return [
        (text, {"question": ASKED, "candidates": [YES, NO], "correct_ans": right, "type": 0, "concern": 2})
        for text, right in ROWS
    ]


def _publish_q_bench(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for number, (text, row) in enumerate(rows):
        write_card(folder / "images" / f"{number:05}.jpg", text)
        asked.append(row | {"img_path": f"{number:05}.jpg"})
    return write_json(folder / "llvisionqa_dev.json", asked)


def _vstar() -> list[tuple[str, Row]]:
    return [
        (
            text,
            {
                "target_object": ["card"],
                "bbox": [[1, 2, 3, 4]],
                "question": ASKED,
                "options": [right, NO if right == YES else YES],
            },
        )
        for text, right in ROWS
    ]


def _publish_vstar(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    for number, (text, row) in enumerate(rows):
        write_card(folder / "direct_attributes" / f"sa_{number}.jpg", text)
        write_json(folder / "direct_attributes" / f"sa_{number}.json", row)
    return folder


def _vstar_lines() -> list[tuple[str, Row]]:
    asked = f"{ASKED}\n(A) {YES}\n(B) {NO}\nAnswer with the option's letter from the given choices directly."
    return [
        (text, {"text": asked, "category": "direct_attributes", "label": LETTER[right], "question_id": number})
        for number, (text, right) in enumerate(ROWS)
    ]


def _publish_vstar_lines(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for text, row in rows:
        name = f"direct_attributes/sa_{row['question_id']}.jpg"
        write_card(folder / name, text)
        asked.append(row | {"image": name})
    write_json(folder / "test_questions.jsonl", asked)
    return folder


def _mathvista() -> list[tuple[str, Row]]:
    choose = {"question": ASKED, "choices": [YES, NO], "question_type": "multi_choice", "answer_type": "text"}
    number = {"question": "What is the number?", "choices": None, "question_type": "free_form"}
    number |= {"answer_type": "integer"}
    rows: list[tuple[str, Row]] = [
        (YES, choose | {"answer": YES}),
        (NO, choose | {"answer": NO}),
        (TWELVE, number | {"answer": "12"}),
        (TWELVE, number | {"answer": "60"}),
    ]
    return [
        (text, row | {"pid": str(i), "metadata": {"task": "t", "context": "c"}}) for i, (text, row) in enumerate(rows)
    ]


def _publish_mathvista(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    names = {}
    for text, row in rows:
        names[row["pid"]] = f"images/{row['pid']}.jpg"
        write_card(folder / names[row["pid"]], text)
    return write_json(folder / "testmini.json", {row["pid"]: row | {"image": names[row["pid"]]} for _, row in rows})


def _amber() -> list[tuple[str, Row]]:
    return [
        (text, {"id": number, "query": "Does it say yes?", "truth": right.lower(), "type": "attribute"})
        for number, (text, right) in enumerate(ROWS, 1)
    ]


def _publish_amber(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for text, row in rows:
        write_card(folder / "image" / f"AMBER_{row['id']}.jpg", text)
        asked.append({"id": row["id"], "query": row["query"], "image": f"AMBER_{row['id']}.jpg"})
    truths = [{name: row[name] for name in ("id", "type", "truth")} for _, row in rows]
    write_json(folder / "data" / "annotations.json", truths)
    return write_json(folder / "data" / "query" / "query_all.json", asked)


def _ocrbench() -> list[tuple[str, Row]]:
    return [
        (
            text,
            {
                "dataset_name": "IIIT5K",
                "id": number,
                "question": ASKED,
                "answers": [right.upper()],
                "type": "Regular Text Recognition",
            },
        )
        for number, (text, right) in enumerate(ROWS)
    ]


def _publish_ocrbench(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for text, row in rows:
        write_card(folder / "OCRBench_Images" / "IIIT5K" / f"{row['id']}.png", text)
        asked.append(row | {"image_path": f"IIIT5K/{row['id']}.png"})
    return write_json(folder / "OCRBench.json", asked)


def _ocrbench_table() -> list[tuple[str, Row]]:
    kind = "Regular Text Recognition"
    return [
        (text, {"dataset": "IIIT5K", "question": ASKED, "question_type": kind, "answer": [right.upper()]})
        for text, right in ROWS
    ]


def _vlmevalkit() -> list[tuple[str, Row]]:
    """As MMBench: options in columns, the last ones empty, the copies of a question 1,000,000 apart."""
    return [
        (
            text,
            {
                "index": number,
                "question": ASKED,
                "hint": "Look closely.",
                "A": YES,
                "B": NO,
                "C": "",
                "D": "",
                "answer": LETTER[right],
                "category": "ocr",
                "l2-category": "fine",
            },
        )
        for number, (text, right) in zip((7, 8, 1_000_007, 1_000_008), ROWS, strict=True)
    ]


def _plain() -> list[tuple[str, Row]]:
    return [(text, {"question": ASKED, "answer": right, "skill": "word"}) for text, right in ROWS]


def _publish_plain(folder: Path, rows: Sequence[tuple[str, Row]]) -> Path:
    asked = []
    for number, (text, row) in enumerate(rows):
        write_card(folder / "pages" / f"{number}.png", text)
        asked.append(row | {"image": f"{number}.png"})
    write_json(folder / "questions.json", asked)
    return folder


LAYOUTS = (
    Layout("seed-bench", _seed_bench, _publish_seed_bench, published_form="json"),
    Layout("mme-realworld", _mme_realworld, None, picture="Image"),
    Layout("mmvp", _mmvp, _publish_mmvp, picture=""),
    Layout("q-bench", _q_bench, _publish_q_bench, picture="img_path", published_form="json"),
    Layout("vstar", _vstar, _publish_vstar, picture="image_path"),
    Layout("vstar-jsonl", _vstar_lines, _publish_vstar_lines),
    Layout("mathvista", _mathvista, _publish_mathvista, published_form="json"),
    Layout("amber", _amber, _publish_amber, published_form="json"),
    Layout("ocrbench", _ocrbench, _publish_ocrbench, picture="image_path", published_form="json"),
    Layout("ocrbench-parquet", _ocrbench_table, None),
    Layout("vlmevalkit", _vlmevalkit, None),
    Layout("plain", _plain, _publish_plain, published_form="json"),
)
"""Every layout that `edge-mllm eval` knows."""
