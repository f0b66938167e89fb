"""The published column layouts, as data: which column of a row means what.

Tried in order; the first whose ``needs`` are all present is taken. A new layout is one more entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edge_mllm.errors import TaskError

if TYPE_CHECKING:
    from pathlib import Path

OptionStyle = Literal["letters", "choice_letters", "list", "inline"]
"""letters: columns A to I. choice_letters: choice_a... list: one list column. inline: ``(a) x (b) y`` in text."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns by meaning; of several names the first that has a value counts."""

    name: str
    source: str
    needs: frozenset[str]
    question: tuple[str, ...] = ("question",)
    answer: tuple[str, ...] = ("answer",)
    index: tuple[str, ...] = ("index",)
    picture: tuple[str, ...] = ("image", "image_path")
    picture_path: str = ""
    """Where pictures are when no column says so, filled with the row's values."""
    folders: tuple[str, ...] = ()
    """Folders beside the task file in which the set keeps its pictures."""
    options: tuple[OptionStyle, ...] = ()
    option_column: tuple[str, ...] = ()
    answer_is_text: bool = False
    """The answer names the option's text (otherwise its letter; the other way is tried second)."""
    first_is_right: bool = False
    """The first option is the right one; options are then shuffled, the same way every time."""
    category: tuple[str, ...] = ("category",)
    l2_category: tuple[str, ...] = ("l2-category",)
    group: Literal["", "picture", "pairs"] = ""
    """What makes questions belong together: one picture, or neighbours in the file (1 and 2, 3 and 4, ...)."""
    scorer: str = ""


LAYOUTS = (
    Layout(
        name="seed-bench",
        source="https://github.com/AILab-CVC/SEED-Bench/blob/main/DATASET.md",
        needs=frozenset({"choice_a", "question"}),
        index=("question_id",),
        picture=("image", "data_id"),
        folders=("SEED-Bench-image", "SEED-Bench-2-image", "SEED-Bench-2-plus-image", "cc3m-image"),
        options=("choice_letters",),
        category=("question_image_subtype", "question_type_id"),
        l2_category=("level",),
    ),
    Layout(
        name="mme-realworld",
        source="https://github.com/yfzhang114/MME-RealWorld/blob/main/evaluation/output_test_template.json",
        needs=frozenset({"Question_id", "Text", "Answer choices"}),
        index=("Question_id",),
        question=("Text",),
        answer=("Ground truth",),
        picture=("Image",),
        options=("list",),
        option_column=("Answer choices",),
        category=("Category",),
        l2_category=("Subtask",),
    ),
    Layout(
        name="mmvp",
        source="https://github.com/tsb0601/MMVP/blob/main/scripts/evaluate_mllm.py",
        needs=frozenset({"Question", "Options", "Correct Answer"}),
        index=("Index", "\ufeffIndex", "lndex"),
        question=("Question",),
        answer=("Correct Answer",),
        picture=(),
        picture_path="{Index}.jpg",
        folders=("MMVP Images", "MMVP Imgaes"),
        options=("inline",),
        option_column=("Options",),
        group="pairs",
    ),
    Layout(
        name="q-bench",
        source="https://github.com/Q-Future/Q-Bench (llvisionqa_dev.json)",
        needs=frozenset({"img_path", "candidates", "correct_ans"}),
        answer=("correct_ans",),
        picture=("img_path",),
        folders=("images", "images_llvisionqa", "llvisionqa_qbench_dev", "llvisionqa_qbench_test"),
        options=("list",),
        option_column=("candidates",),
        answer_is_text=True,
        category=("concern",),
        l2_category=("type",),
    ),
    Layout(
        name="vstar",
        source="https://github.com/penghao-wu/vstar/blob/main/vstar_bench_eval.py",
        needs=frozenset({"question", "options", "target_object", "bbox"}),
        answer=("options",),
        picture=("image_path",),
        options=("list",),
        option_column=("options",),
        first_is_right=True,
    ),
    Layout(
        name="vstar-jsonl",
        source="https://huggingface.co/datasets/craigwu/vstar_bench (test_questions.jsonl)",
        needs=frozenset({"text", "image", "label", "question_id"}),
        index=("category", "question_id"),
        question=("text",),
        answer=("label",),
        options=("inline",),
        option_column=("text",),
    ),
    Layout(
        name="mathvista",
        source="https://huggingface.co/datasets/AI4Math/MathVista",
        needs=frozenset({"question", "choices", "answer_type", "question_type"}),
        index=("pid", "index"),
        picture=("decoded_image", "image"),
        options=("list",),
        option_column=("choices",),
        answer_is_text=True,
        category=("task", "metadata.task"),
        l2_category=("metadata.context",),
        scorer="number",
    ),
    Layout(
        name="amber",
        source="https://github.com/junyangwang0410/AMBER (query_*.json, annotations.json, relation.json)",
        needs=frozenset({"query", "truth", "image"}),
        index=("id",),
        question=("query",),
        answer=("truth",),
        picture=("image",),
        folders=("image", "images", "../image", "../images", "../../image", "../../images"),
        category=("type",),
        scorer="yes_no",
    ),
    Layout(
        name="ocrbench",
        source="https://github.com/Yuliang-Liu/MultimodalOCR/blob/main/OCRBench/example.py",
        needs=frozenset({"dataset_name", "image_path", "question", "answers", "type"}),
        index=("id",),
        answer=("answers",),
        picture=("image_path",),
        folders=("OCRBench_Images", "../OCRBench_Images"),
        category=("type",),
        l2_category=("dataset_name",),
        scorer="contains",
    ),
    Layout(
        name="ocrbench-parquet",
        source="https://huggingface.co/datasets/echo840/OCRBench",
        needs=frozenset({"dataset", "question", "question_type", "answer", "image"}),
        index=(),
        category=("question_type",),
        l2_category=("dataset",),
        scorer="contains",
    ),
    Layout(
        name="vlmevalkit",
        source="https://github.com/open-compass/VLMEvalKit/blob/main/docs/en/Development.md",
        needs=frozenset({"index", "question", "answer"}),
        picture=("image", "bytes", "image_path"),
        options=("letters", "inline"),
        option_column=("multi-choice options",),
        group="picture",
    ),
    Layout(
        name="plain",
        source="a question, an answer and pictures under their usual names",
        needs=frozenset(),
        index=("index", "id", "question_id", "questionId", "pid"),
        question=("question", "query", "prompt", "text"),
        answer=("answer", "answers", "label", "answer_text"),
        picture=("image", "images", "image_path", "picture", "pictures", "file", "file_name", "page"),
        folders=("images", "pictures", "pages"),
        options=("letters", "list"),
        option_column=("options", "choices"),
        category=("category", "skill", "type", "question_type"),
        l2_category=("l2-category", "subset", "layout"),
        group="picture",
    ),
)


def find_layout(path: Path, columns: frozenset[str]) -> Layout:
    """Return the first layout whose columns are all there.

    Raises:
        TaskError: Nothing in the file looks like a question with an answer.
    """
    layout = next(entry for entry in LAYOUTS if entry.needs <= columns)
    for meaning, names in (("question", layout.question), ("answer", layout.answer)):
        if not columns & {name.partition(".")[0] for name in names}:
            found = ", ".join(sorted(columns)) or "none"
            raise TaskError(path, f"no column holds the {meaning} (looked for {', '.join(names)}; found {found})")
    return layout


OCRBENCH_CATEGORIES = frozenset(
    {
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
        "Scene Text-centric VQA",
        "Doc-oriented VQA",
        "Key Information Extraction",
        "Handwritten Mathematical Expression Recognition",
    }
)
"""Tell an OCRBench table, whose columns are everybody's, from other open questions."""

FORMULAS = "Handwritten Mathematical Expression Recognition"
"""OCRBench compares these without white space and with case."""
