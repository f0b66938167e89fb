"""Scorers against the edge cases of the papers and tools they follow."""

from __future__ import annotations

import difflib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mllm.errors import SettingError
from edge_mllm.measure.eval.pictures import FilePicture
from edge_mllm.measure.eval.resampling import bootstrap_interval, mcnemar_exact
from edge_mllm.measure.eval.scoring import metrics
from edge_mllm.measure.eval.scoring.choices import extract_letter
from edge_mllm.measure.eval.scoring.objects import Mentions, ObjectWords, count_mentions, mention_figures
from edge_mllm.measure.eval.scoring.scoring import LOGPROB, prompt_of, score_logprobs, score_reply, scorer_of
from edge_mllm.measure.eval.scoring.yes_no import count_yes_no, extract_yes_no, mme_score
from edge_mllm.measure.eval.tasks import Question

OPTIONS = ("a cat", "a dog", "a red car", "a car")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        (" B.", "B"),
        ("**C**", "C"),
        ("B. a dog", "B"),
        ("(C) a red car", "C"),
        ("The answer is C", "C"),
        ("The correct answer is: (D).", "D"),
        ("Answer: D", "D"),
        ("I think option B because A is too small", "B"),
        ("<answer>D</answer>", "D"),
        ("<think>B or C?</think><answer>C</answer>", "C"),
        ("A dog is in the picture, that is B", "B"),  # "A" is an article in a sentence
        ("It shows a dog.", "B"),
        ("a car", "D"),
        ("It is a red car", "C"),  # holds "a red car"; "car" alone is not an option's text
        ("E", ""),  # not an option
        ("A or B", ""),  # two letters
        ("cat", ""),
        ("I cannot tell.", ""),
        ("", ""),
    ],
)
def test_letter_extraction(reply: str, letter: str) -> None:
    assert extract_letter(reply, OPTIONS) == letter


def test_the_longest_of_nested_option_texts_counts() -> None:
    options = ("red", "dark red", "blue")
    assert extract_letter("It is dark red.", options) == "B"
    assert extract_letter("red", options) == "A"
    assert extract_letter("dark red or blue", options) == ""
    assert extract_letter("reddish", options) == ""


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("Yes", "yes"),
        ("No, there is not.", "no"),
        ("Yes, no doubt.", "yes"),  # the first word decides
        ("There is no car.", "no"),
        ("Nothing", ""),  # not the word "no"
        ("It is yes or no", ""),
        ("", ""),
    ],
)
def test_yes_no_extraction(reply: str, word: str) -> None:
    assert extract_yes_no(reply) == word


def test_yes_no_counts_by_hand() -> None:
    # truth yes: 3 (2 found, 1 unparsed); truth no: 2 (1 found)
    counts = count_yes_no([("yes", "yes"), ("yes", "yes"), ("", "yes"), ("yes", "no"), ("no", "no")])
    assert counts.accuracy == pytest.approx(3 / 5)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 3)
    assert counts.f1 == pytest.approx(2 / 3)
    assert counts.precision_no == 1.0
    assert counts.recall_no == 0.5
    assert counts.f1_no == pytest.approx(2 / 3)
    assert counts.yes_share == pytest.approx(3 / 5)


def test_yes_no_counts_without_any_yes() -> None:
    counts = count_yes_no([("no", "no"), ("no", "no")])
    assert (counts.accuracy, counts.precision, counts.recall, counts.f1, counts.f1_no) == (1.0, 0.0, 0.0, 0.0, 1.0)


def test_mme_score_runs_to_200() -> None:
    assert mme_score(1.0, 1.0) == 200.0
    assert mme_score(0.75, 0.5) == pytest.approx(125.0)


def test_contains_is_the_rule_of_ocrbench() -> None:
    assert metrics.contains("The sign says CENTRE\nStreet", ["centre street"]) == 1.0
    assert metrics.contains("Centr", ["centre"]) == 0.0
    assert metrics.contains("x", ["a", "X"]) == 1.0
    # Formulas: no white space, case kept.
    assert metrics.contains_formula("$ \\frac { a } { B } $", ["\\frac{a}{B}"]) == 1.0
    assert metrics.contains_formula("\\frac{a}{b}", ["\\frac{a}{B}"]) == 0.0


def test_exact_ignores_case_space_and_outer_punctuation() -> None:
    assert metrics.exact(' "4.50  EUR." ', ["4.50 eur"]) == 1.0
    assert metrics.exact("4.5 EUR", ["4.50 EUR"]) == 0.0
    assert metrics.exact("cafe\u0301", ["café"]) == 1.0
    assert metrics.exact("two", ["one", "Two"]) == 1.0


def test_verbatim_keeps_case_and_punctuation() -> None:
    assert metrics.verbatim(" 4.50 EUR\n", ["4.50 EUR"]) == 1.0
    assert metrics.verbatim("4.50 eur", ["4.50 EUR"]) == 0.0
    assert metrics.verbatim("4.50 EUR.", ["4.50 EUR"]) == 0.0


@pytest.mark.parametrize(
    ("reply", "answers", "score"),
    [
        ("Hello World", ["hello   world"], 1.0),
        ("helo", ["hello"], 0.8),
        ("abcd", ["abxy"], 0.0),  # NL = 0.5 is not below the threshold
        ("abc", ["abx"], 2 / 3),
        ("wrong", ["right", "wrung"], 0.8),  # the best answer counts
        ("", ["text"], 0.0),
        ("", [""], 1.0),
    ],
)
def test_anls(reply: str, answers: list[str], score: float) -> None:
    assert metrics.anls(reply, answers) == pytest.approx(score)


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_metric_within_bounds(left: str, right: str) -> None:
    distance = metrics.edit_distance(left, right)
    assert distance == metrics.edit_distance(right, left)
    assert abs(len(left) - len(right)) <= distance <= max(len(left), len(right))
    assert (distance == 0) == (left == right)
    matching = sum(block.size for block in difflib.SequenceMatcher(None, left, right).get_matching_blocks())
    assert distance <= len(left) + len(right) - 2 * matching


def test_edit_distance_of_the_textbook_pair() -> None:
    assert metrics.edit_distance("kitten", "sitting") == 3


@pytest.mark.parametrize(
    ("reply", "answer", "score"),
    [
        ("105", "100", 1.0),
        ("95", "100", 1.0),
        ("105.1", "100", 0.0),
        ("-100", "100", 0.0),
        ("-104", "-100", 1.0),
        ("12%", "0.12", 1.0),
        ("12", "12%", 0.0),
        ("0", "0", 1.0),
        ("0.01", "0", 0.0),  # five per cent of nothing
        ("Blue", "blue", 1.0),
        ("blues", "blue", 0.0),
        ("1,000", "1000", 0.0),  # not a number to the published code
    ],
)
def test_relaxed_accuracy(reply: str, answer: str, score: float) -> None:
    assert metrics.relaxed(reply, [answer]) == score


@pytest.mark.parametrize(
    ("reply", "answer", "precision", "score"),
    [
        ("The area is 14.", "14", 0, 1.0),
        ("14.9", "14", 0, 1.0),  # truncated, as in int(float(x))
        ("So 3 + 4 = 7", "7", 0, 1.0),
        ("1.24", "1.2", 1, 1.0),
        ("1.26", "1.2", 1, 0.0),
        ("1,200 people", "1200", 0, 1.0),
        ("-0.5", "-0.5", None, 1.0),
        ("none", "0", 0, 0.0),
    ],
)
def test_number_at_the_precision_of_the_answer(reply: str, answer: str, precision: int | None, score: float) -> None:
    assert metrics.number(reply, [answer], precision) == score


def question(**fields: object) -> Question:
    base: dict[str, object] = {"index": "1", "text": "What is it?", "answers": ("B",), "pictures": ()}
    return Question(**(base | fields))  # type: ignore[arg-type]


def test_prompts() -> None:
    choice = question(options=("cat", "dog"), hint="A hint.")
    assert prompt_of(choice, "choice") == (
        "A hint.\nWhat is it?\nA. cat\nB. dog\nAnswer with the letter of the right option."
    )
    assert prompt_of(choice, LOGPROB) == "A hint.\nWhat is it?"
    listed = question(text="Which? (A) cat (B) dog", options=("cat", "dog"), options_in_text=True)
    assert prompt_of(listed, "choice").count("cat") == 1
    assert prompt_of(question(text="Is it? Please answer yes or no."), "yes_no").count("yes or no") == 1
    assert prompt_of(question(text="Is it?"), "yes_no").endswith("Please answer yes or no.")
    assert prompt_of(question(), "exact", "One word.") == "What is it?\nOne word."


def test_scorers_are_chosen_by_question_row_task_and_user() -> None:
    assert scorer_of(question(options=("a", "b")), "exact", None) == "choice"
    assert scorer_of(question(scorer="number"), "exact", None) == "number"
    assert scorer_of(question(), "yes_no", None) == "yes_no"
    assert scorer_of(question(), "exact", "anls") == "anls"
    with pytest.raises(SettingError, match="no scorer is called 'bleu'"):
        scorer_of(question(), "exact", "bleu")
    for answer in (question(), question(answers=("Yes",), options=("Yes", "No"))):
        with pytest.raises(SettingError, match="needs the answer yes or no, which question 1"):
            scorer_of(answer, "exact", "yes_no")
    with pytest.raises(SettingError, match="needs options, which question 1"):
        scorer_of(question(), "exact", LOGPROB)


def test_open_scorers_compare_with_the_right_options_text() -> None:
    scored = score_reply("It is a dog!", question(options=("cat", "dog")), "contains")
    assert scored.score == 1.0
    assert score_reply("B", question(options=("cat", "dog")), "contains").score == 0.0


def test_logprob_takes_the_most_likely_option() -> None:
    assert score_logprobs([-2.0, -0.5, -3.0], question(options=("a", "b", "c"))).score == 1.0
    assert score_logprobs([-0.1, -0.5, -3.0], question(options=("a", "b", "c"))).prediction == "A"


def test_mcnemar_exact_values() -> None:
    # scipy.stats.binomtest(3, 13).pvalue and (0, 5)
    assert mcnemar_exact(3, 10) == pytest.approx(0.09228515625)
    assert mcnemar_exact(0, 5) == pytest.approx(0.0625)
    assert mcnemar_exact(4, 4) == 1.0
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(700, 800) == pytest.approx(0.0106, abs=2e-4)


def test_bootstrap_interval_agrees_with_the_normal_one_and_is_seeded() -> None:
    values = [1.0] * 700 + [0.0] * 300
    low, high = bootstrap_interval(values)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - half, abs=0.003)
    assert high == pytest.approx(0.7 + half, abs=0.003)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([0.25] * 9) == (0.25, 0.25)


def test_a_picture_file_is_named_in_messages(tmp_path) -> None:
    assert str(tmp_path / "x.png") in FilePicture(tmp_path / "x.png").name


SCENE = ObjectWords(
    present=("man", "child", "sea", "bin"),
    expected=("ship", "bird"),
    synonyms={
        "man": ("person", "people", "boy"),
        "child": ("kid", "boy", "person"),
        "sea": ("water",),
        "bin": ("can",),
        "ship": ("boat",),
        "bird": (),
        "cherry": (),
        "leave": (),
        "shelf": (),
        "sign": (),
    },
    ignored=frozenset({"sign"}),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Mentions(0, 0, 4, 0, 2, 0)),
        ("A man and two kids by the water.", Mentions(3, 0, 4, 3, 2, 0)),
        # a word that fits several objects counts for the first that has it as another word; twice named is covered once
        ("A boy, a person and people", Mentions(3, 0, 4, 1, 2, 0)),
        ("A boat, boats and a bird; cherries.", Mentions(4, 4, 4, 0, 2, 2)),
        ("A sign by the Sea", Mentions(2, 0, 4, 1, 2, 0)),
        ("He can leave. A can, the leaves", Mentions(2, 1, 4, 1, 2, 0)),
        ("shelves and birdhouses", Mentions(1, 1, 4, 0, 2, 0)),
    ],
)
def test_objects_that_a_description_names(text: str, expected: Mentions) -> None:
    assert count_mentions(text, SCENE) == expected


def test_figures_of_descriptions_are_sums_over_all_of_them() -> None:
    figures = mention_figures([Mentions(4, 1, 4, 2, 2, 1), Mentions(1, 0, 6, 1, 3, 0)])
    assert figures == {"chair": 0.2, "cover": 0.3, "hal": 0.5, "cog": 0.2}
    assert mention_figures([Mentions(0, 0, 0, 0, 0, 0)]) == dict.fromkeys(("chair", "cover", "hal", "cog"), 0.0)


def test_a_description_is_right_when_it_names_nothing_wrong() -> None:
    question = Question(index="1", text="Describe.", answers=SCENE.present, pictures=(), objects=SCENE)
    assert score_reply("A man with a boat", question, "objects").score == 0.0
    right = score_reply("A man.", question, "objects")
    assert (right.score, right.mentions) == (1.0, Mentions(1, 0, 4, 1, 2, 0))
    with pytest.raises(SettingError, match="needs lists of objects"):
        scorer_of(Question(index="1", text="Describe.", answers=("x",), pictures=()), "exact", "objects")
