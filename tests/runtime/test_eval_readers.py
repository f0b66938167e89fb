"""Readers on small files in the published column layouts, and on broken rows."""

from __future__ import annotations

import builtins
import csv
import io
from pathlib import Path

import pytest
from eval_files import base64_picture, mme_rows, picture_bytes, write_json, write_picture, write_tsv
from PIL import Image

from edge_mllm.errors import ExtraMissingError, ImageError, TaskError
from edge_mllm.measure.eval.pictures import open_picture
from edge_mllm.measure.eval.readers import read_task
from edge_mllm.measure.eval.readers.layouts import LAYOUTS
from edge_mllm.measure.eval.tasks import Task

BLUE = (0, 0, 255)


def corner(task: Task, number: int, which: int = 0) -> tuple[int, ...]:
    """The bottom right pixel of a question's picture."""
    pixel = open_picture(task.questions[number].pictures[which]).getpixel((23, 15))
    assert isinstance(pixel, tuple)
    return pixel


def test_mme_table_with_references_to_other_rows(tmp_path: Path) -> None:
    task = read_task(write_tsv(tmp_path / "MME.tsv", mme_rows()))
    assert (task.name, task.layout, task.scorer) == ("MME", "vlmevalkit", "yes_no")
    assert [q.index for q in task.questions] == ["0", "1", "2", "3"]
    assert [corner(task, i) for i in (1, 3)] == [(255, 0, 0), BLUE]
    groups = [q.group for q in task.questions]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert task.questions[0].answers == ("Yes",)


def test_mmbench_table(tmp_path: Path) -> None:
    row = {
        "index": 241,
        "question": 'What is "this",\nexactly?',
        "hint": "Look.",
        "A": "cat",
        "B": "dog",
        "C": "",
        "D": "",
        "answer": "B",
        "category": "object_localization",
        "image": base64_picture("blue"),
        "l2-category": "finegrained_perception",
        "split": "dev",
    }
    rotated = row | {"index": 1_000_241, "A": "dog", "B": "cat", "answer": "A", "image": "241"}
    task = read_task(write_tsv(tmp_path / "MMBench_DEV_EN.tsv", [row, rotated]))
    first = task.questions[0]
    assert task.scorer == "choice"
    assert first.text == 'What is "this",\nexactly?'
    assert (first.options, first.answers, first.hint) == (("cat", "dog"), ("B",), "Look.")
    assert (first.category, first.l2_category) == ("object_localization", "finegrained_perception")
    assert [q.group for q in task.questions] == ["241", "241"]  # CircularEval: both or nothing
    assert corner(task, 1) == BLUE


def test_hr_bench_table(tmp_path: Path) -> None:
    options = {"A": "red", "B": "blue", "C": "green", "D": "white"}
    row = {"index": 0, "question": "Which colour?", "image": base64_picture("blue"), **options, "answer": "B"}
    task = read_task(write_tsv(tmp_path / "hr_bench_4k.tsv", [row | {"category": "single", "cycle_category": 0}]))
    assert task.questions[0].options == ("red", "blue", "green", "white")
    assert task.questions[0].category == "single"


def test_a_field_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    noise = Image.effect_noise((400, 400), 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    import base64

    text = base64.b64encode(buffer.getvalue()).decode()
    before = csv.field_size_limit()
    assert len(text) > before == 131072
    row = {"index": 1, "image": text, "question": "?", "answer": "x"}
    task = read_task(write_tsv(tmp_path / "big.tsv", [row]))
    assert open_picture(task.questions[0].pictures[0]).tobytes() == noise.tobytes()
    assert csv.field_size_limit() == before


def test_several_pictures_in_one_field(tmp_path: Path) -> None:
    images = str([base64_picture("red"), base64_picture("blue")])
    row = {"index": 1, "image": images, "question": "<image>Compare.", "answer": "x"}
    task = read_task(write_tsv(tmp_path / "multi.tsv", [row]))
    assert task.questions[0].text == "Compare."
    assert corner(task, 0, 1) == BLUE


def test_seed_bench_json(tmp_path: Path) -> None:
    write_picture(tmp_path / "SEED-Bench-image" / "1454426_2591111986", "blue")
    entry = {
        "answer": "A",
        "choice_a": "One",
        "choice_b": "Two",
        "choice_c": "Three",
        "choice_d": "Four",
        "data_id": "1454426_2591111986",
        "data_type": "image",
        "question": "How many towels are in the image?",
        "question_id": "101669",
        "question_type_id": 5,
    }
    video = entry | {"data_type": "video", "question_id": "v1"}
    data = {"question_type": {"Instances Counting": 5}, "questions": [entry, video]}
    task = read_task(write_json(tmp_path / "SEED-Bench.json", data))
    assert (task.layout, task.scorer, corner(task, 0)) == ("seed-bench", "choice", BLUE)
    assert task.questions[0].options == ("One", "Two", "Three", "Four")
    assert [(row.index, row.reason) for row in task.broken] == [("v1", "is about a video")]


def test_seed_bench_2_plus_json(tmp_path: Path) -> None:
    write_picture(tmp_path / "text_rich" / "1.png")
    entry = {
        "question_id": "0",
        "question": "How many?",
        "choice_a": "80",
        "choice_b": "950",
        "choice_c": "20",
        "choice_d": "8,950",
        "answer": "D",
        "data_id": "text_rich/1.png",
        "question_image_subtype": "tree diagram",
        "data_type": "Single Image",
        "level": "L1",
    }
    task = read_task(write_json(tmp_path / "SEED-Bench_v2plus.json", {"questions": [entry]}))
    assert task.questions[0].category == "tree diagram"
    assert task.questions[0].answers == ("D",)


def test_vstar_folders_shuffle_the_right_option(tmp_path: Path) -> None:
    for i in range(12):
        write_picture(tmp_path / "direct_attributes" / f"sa_{i}.jpg")
        entry = {
            "target_object": ["flag"],
            "bbox": [[1, 2, 3, 4]],
            "question": "What is the colour of the flag?",
            "options": ["The flag is red.", "The flag is blue.", "The flag is white.", "The flag is black."],
        }
        write_json(tmp_path / "direct_attributes" / f"sa_{i}.json", entry)
    task = read_task(tmp_path)
    assert (task.layout, len(task.questions)) == ("vstar", 12)
    for question in task.questions:
        assert question.options["ABCD".index(question.answers[0])] == "The flag is red."
    assert len({q.answers for q in task.questions}) > 1  # the right letter is not always A
    assert task == read_task(tmp_path)
    assert task.questions[0].category == "direct_attributes"


def test_vstar_jsonl_has_its_options_in_the_text(tmp_path: Path) -> None:
    write_picture(tmp_path / "direct_attributes" / "sa_1.jpg")
    text = "What colour is it?\\n(A) red\\n(B) blue\\nAnswer with the option's letter."
    line = f'{{"image": "direct_attributes/sa_1.jpg", "text": "{text}", "category": "direct_attributes", '
    (tmp_path / "test_questions.jsonl").write_text(line + '"label": "B", "question_id": 0}\n')
    task = read_task(tmp_path)
    question = task.questions[0]
    assert (question.index, question.options, question.answers) == ("direct_attributes/0", ("red", "blue"), ("B",))
    assert question.options_in_text


def test_ocrbench_json_and_its_formula_rule(tmp_path: Path) -> None:
    write_picture(tmp_path / "OCRBench_Images" / "IIIT5K" / "a.png")
    entry = {
        "dataset_name": "IIIT5K",
        "id": 0,
        "image_path": "IIIT5K/a.png",
        "question": "what is written in the image?",
        "answers": ["CENTRE"],
        "type": "Regular Text Recognition",
    }
    formula = entry | {"dataset_name": "HME100k", "id": 1, "answers": "a ^ 2"}
    formula["type"] = "Handwritten Mathematical Expression Recognition"
    task = read_task(write_json(tmp_path / "OCRBench.json", [entry, formula]))
    assert (task.layout, task.scorer) == ("ocrbench", "contains")
    assert [q.scorer for q in task.questions] == ["contains", "contains_formula"]
    assert task.questions[0].answers == ("CENTRE",)


def test_ocrbench_table_is_told_by_its_categories(tmp_path: Path) -> None:
    row = {"index": 0, "image": base64_picture("red"), "question": "?", "answer": "['CENTRE', 'center']"}
    task = read_task(write_tsv(tmp_path / "OCRBench.tsv", [row | {"category": "Key Information Extraction"}]))
    assert task.scorer == "contains"
    assert task.questions[0].answers == ("CENTRE", "center")


def test_mathvista_json(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "1.jpg")
    free = {
        "question": "When does it?",
        "image": "images/1.jpg",
        "choices": None,
        "unit": None,
        "precision": 1,
        "answer": "1.2",
        "question_type": "free_form",
        "answer_type": "float",
        "pid": "1",
        "metadata": {"task": "textbook question answering", "context": "scientific figure"},
    }
    choice = free | {"choices": ["B", "A"], "answer": "A", "question_type": "multi_choice", "answer_type": "text"}
    a_list = free | {"answer": "[0, 1]", "answer_type": "list"}
    task = read_task(
        write_json(tmp_path / "testmini.json", {"1": free, "2": choice | {"pid": "2"}, "3": a_list | {"pid": "3"}})
    )
    one, two, three = task.questions
    assert (task.layout, one.scorer, one.precision) == ("mathvista", "number", 1)
    assert one.category == "textbook question answering"
    assert two.answers == ("B",)  # the answer is a text, and the second option's text is "A"
    assert (three.scorer, three.answers) == ("exact", ("[0, 1]",))


def test_amber_joins_questions_with_annotations(tmp_path: Path) -> None:
    write_picture(tmp_path / "image" / "AMBER_1.jpg")
    asked = [{"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."}]
    asked += [{"id": 2, "image": "AMBER_1.jpg", "query": "Is there direct contact between the person and grass?"}]
    asked += [{"id": 3, "image": "AMBER_1.jpg", "query": "Is there a dog?"}]
    path = write_json(tmp_path / "data" / "query" / "query_all.json", asked)
    with pytest.raises(TaskError, match=r"annotations\.json"):
        read_task(path)
    truths = [{"id": 1, "type": "generative", "truth": ["grass"], "hallu": ["sea"]}]
    truths += [{"id": 2, "type": "relation", "truth": "yes"}]
    write_json(tmp_path / "data" / "annotations.json", truths)
    task = read_task(path)
    assert (task.layout, task.scorer) == ("amber", "yes_no")
    assert [(q.index, q.answers, q.category) for q in task.questions] == [("2", ("yes",), "relation")]
    assert [(row.index, row.reason.split(",")[0]) for row in task.broken] == [
        ("1", "asks for a description"),
        ("3", "has no entry in annotations.json"),
    ]
    write_json(tmp_path / "data" / "relation.json", {"grass": ["ground"], "sea": ["water"]})
    (tmp_path / "data" / "safe_words.txt").write_text("Line\nsign")
    described = read_task(path).questions[0]
    assert read_task(path).sha256 != task.sha256
    assert (described.scorer, described.answers) == ("objects", ("grass",))
    assert described.objects is not None
    assert (described.objects.expected, described.objects.ignored) == (("sea",), {"line", "sign"})
    (tmp_path / "data" / "annotations.json").write_text("[{}]")
    with pytest.raises(TaskError, match="cannot be read"):
        read_task(path)


def test_mme_realworld_json(tmp_path: Path) -> None:
    write_picture(tmp_path / "AutonomousDriving" / "n008.jpg")
    entry = {
        "Question_id": "Perception/Autonomous_Driving/Objects_Identify/0000",
        "Question Type": "Multiple Choice",
        "Image": "AutonomousDriving/n008.jpg",
        "Text": "What are objects to the front of the ego car?",
        "Answer choices": ["(A) many cars", "(B) one truck", "(C) x", "(D) y", "(E) All the above answers are wrong."],
        "Ground truth": "E",
        "Task": "Perception",
        "Subtask": "Autonomous_Driving",
        "Category": "Objects_Identify",
    }
    task = read_task(write_json(tmp_path / "MME_RealWorld.json", [entry]))
    question = task.questions[0]
    assert (task.layout, question.answers) == ("mme-realworld", ("E",))
    assert question.options[0] == "many cars"
    assert (question.category, question.l2_category) == ("Objects_Identify", "Autonomous_Driving")


def test_mme_realworld_table(tmp_path: Path) -> None:
    row = {"index": 0, "image": base64_picture("red"), "question": "How many?", "answer": "B", "category": "Monitoring"}
    task = read_task(
        write_tsv(tmp_path / "MME-RealWorld.tsv", [row | {"multi-choice options": "(A) 13\n(B) 90\n(C) 77"}])
    )
    assert task.questions[0].options == ("13", "90", "77")


def test_mmvp_csv_with_pairs(tmp_path: Path) -> None:
    rows = []
    for i in range(1, 5):
        write_picture(tmp_path / "MMVP Images" / f"{i}.jpg", "blue" if i == 2 else "red")
        answer = "(a)" if i % 2 else "(b)"
        rows.append({"Index": i, "Question": "Are they?", "Options": "(a) Open (b) Closed", "Correct Answer": answer})
    write_tsv(tmp_path / "Questions.csv", rows)
    task = read_task(tmp_path)
    assert (task.layout, task.scorer) == ("mmvp", "choice") and task.name == tmp_path.name
    assert task.questions[0].options == ("Open", "Closed")
    assert [q.answers for q in task.questions] == [("A",), ("B",), ("A",), ("B",)]
    assert [q.group for q in task.questions] == ["0", "0", "1", "1"]
    assert corner(task, 1) == BLUE


def test_q_bench_json(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "00000.jpg")
    entry = {
        "img_path": "00000.jpg",
        "question": "Is this picture clear?",
        "question_type": 0,
        "question_concern": 1,
        "type": 0,
        "concern": 2,
        "candidates": ["Yes", "No"],
        "correct_ans": "No",
    }
    task = read_task(write_json(tmp_path / "llvisionqa_dev.json", [entry]))
    assert (task.layout, task.questions[0].options, task.questions[0].answers) == ("q-bench", ("Yes", "No"), ("B",))


def test_parquet_as_datasets_write_it(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    red, blue = ({"bytes": picture_bytes(c), "path": None} for c in ("red", "blue"))
    table = pa.table(
        {
            "pid": ["1", "2", "3"],
            "question": ["a?", "b?", "c?"],
            "image": ["images/1.jpg"] * 3,
            "decoded_image": pa.array([red, blue, None], type=image),
            "choices": [["x", "y"], None, None],
            "answer": ["y", "7", "8"],
            "question_type": ["multi_choice", "free_form", "free_form"],
            "answer_type": ["text", "integer", "integer"],
        }
    )
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "testmini-00000-of-00001.parquet", row_group_size=2)
    task = read_task(tmp_path)
    assert task.layout == "mathvista"
    assert [q.answers for q in task.questions] == [("B",), ("7",)]
    assert [corner(task, 0), corner(task, 1)] == [(255, 0, 0), BLUE]
    assert task.broken[0].index == "3"
    assert "missing" in task.broken[0].reason


def test_parquet_with_lists_of_pictures_and_answers(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cell = [{"bytes": picture_bytes(c), "path": None} for c in ("red", "blue")]
    table = pa.table(
        {
            "questionId": ["q9"],
            "question": ["What?"],
            "images": pa.array([cell], type=pa.list_(image)),
            "answers": [["one", "two"]],
        }
    )
    pq.write_table(table, tmp_path / "set.parquet")
    task = read_task(tmp_path / "set.parquet")
    assert (task.layout, task.questions[0].index, task.questions[0].answers) == ("plain", "q9", ("one", "two"))
    assert corner(task, 0, 1) == BLUE


def test_parquet_without_pyarrow_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ExtraMissingError, match=r"edge-mllm\[eval\]"):
        read_task(tmp_path / "x.parquet")


def test_starter_pages(tmp_path: Path) -> None:
    write_picture(tmp_path / "pages" / "0001.png", "blue")
    entry = {"image": "pages/0001.png", "question": "How much?", "answer": "4.50", "skill": "price", "layout": "label"}
    write_json(tmp_path / "questions.json", [entry])
    task = read_task(tmp_path)
    assert (task.layout, task.scorer) == ("plain", "exact")
    assert (task.questions[0].index, task.questions[0].category, task.questions[0].l2_category) == (
        "1",
        "price",
        "label",
    )
    assert corner(task, 0) == BLUE


def test_broken_rows_name_their_index_and_reason(tmp_path: Path) -> None:
    good = {"index": "7", "image": base64_picture("red"), "question": "?", "answer": "x"}
    rows = [
        good,
        good | {"index": "8", "answer": ""},
        good | {"index": "9", "image": "nowhere.jpg"},
        good | {"index": "10", "image": ""},
        good | {"index": "11", "question": "nan"},
        good | {"index": "12", "image": "!" * 100},
        good | {"index": "13", "image": base64_picture("red")[:-40]},
        good,
    ]
    path = write_tsv(tmp_path / "broken.tsv", rows)
    with path.open("ab") as file:
        file.write(b"14\tonly two fields\n15\t0\t\xff\xfe\tx\n16\t7\tlast\tx\n")
    task = read_task(path)
    assert [q.index for q in task.questions] == ["7", "12", "13", "7#2", "16"]
    reasons = {row.index: row.reason for row in task.broken}
    assert set(reasons) == {"8", "9", "10", "11", "14", "15"}
    assert reasons["8"] == "has no answer"
    assert "nowhere.jpg' is missing" in reasons["9"]
    assert reasons["10"] == "has no picture"
    assert reasons["11"] == "has no question"
    assert reasons["14"] == "has 2 fields, the header has 4"
    assert reasons["15"] == "is not UTF-8"
    for number, message in ((1, "bad base64"), (2, "cannot use picture in 'broken.tsv' at byte")):
        with pytest.raises(ImageError, match=message):
            open_picture(task.questions[number].pictures[0])


def test_an_answer_that_is_no_option_breaks_the_row(tmp_path: Path) -> None:
    row = {"index": 1, "image": base64_picture("red"), "question": "?", "A": "x", "B": "y", "answer": "C"}
    task = read_task(write_tsv(tmp_path / "t.tsv", [row, row | {"index": 2, "answer": "y"}]))
    assert task.broken[0].reason == "its answer 'C' is none of its options"
    assert task.questions[0].answers == ("B",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "it is empty"),
        ("a.json", "{", "it is not JSON"),
        ("a.json", "{}", "no list of questions"),
        ("a.jsonl", "\n", "it is empty"),
        ("a.tsv", "x\ty\n1\t2\n", "no column holds the question"),
        ("a.tsv", "question\ty\n1\t2\n", "no column holds the answer"),
        ("a.tsv", "index\timage\tquestion\tanswer\n5\t\t?\tx\n", "row 5: has no picture"),
        ("a.txt", "x", r"ends in none of \.tsv"),
        ("a.parquet", "x", "it is no parquet file"),
    ],
)
def test_what_is_no_task(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=message):
        read_task(tmp_path / name)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such file"):
        read_task(tmp_path / "none.tsv")
    with pytest.raises(TaskError, match="holds no list of questions"):
        read_task(tmp_path)


def test_a_jsonl_line_that_is_not_json_is_a_broken_row(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    good = '{"image": "a.png", "question": "q", "answer": "x"}'
    (tmp_path / "t.jsonl").write_text(f"{good}\n{{oops\n7\n")
    task = read_task(tmp_path / "t.jsonl")
    assert len(task.questions) == 1
    assert [row.index for row in task.broken] == ["2", "3"]


def test_pictures_are_turned_upright_and_a_folder_can_be_named(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (30, 10)).save(tmp_path / "elsewhere" / "a.jpg", exif=exif)
    path = write_json(tmp_path / "t.json", [{"image": "a.jpg", "question": "q", "answer": "x"}])
    task = read_task(path, images=tmp_path / "elsewhere")
    assert open_picture(task.questions[0].pictures[0]).size == (10, 30)


def test_samples_are_seeded_and_keep_the_order(tmp_path: Path) -> None:
    rows = [{"index": i, "image": base64_picture("red"), "question": "?", "answer": "x"} for i in range(30)]
    task = read_task(write_tsv(tmp_path / "t.tsv", rows))
    drawn = [int(q.index) for q in task.sample(10, seed=3).questions]
    assert drawn == sorted(drawn)
    assert drawn == [int(q.index) for q in task.sample(10, seed=3).questions]
    assert drawn != [int(q.index) for q in task.sample(10, seed=4).questions]
    assert task.sample(99) is task


def test_every_layout_cites_its_source_and_is_reachable() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
    for earlier, layout in enumerate(LAYOUTS):
        assert layout.source
        shadowing = [other.name for other in LAYOUTS[:earlier] if other.needs <= layout.needs]
        assert not shadowing, f"{layout.name} can never be reached because of {shadowing}"
