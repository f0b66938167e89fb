"""Mutated bundles end in an answer or in one line of the library's own; the rest of them by android.fuzz_run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from android.conftest import Core
from android.families import exported
from android.fuzz_run import FAMILIES, GOOD, STARTER, ask, core_process, outcome_of, picture_at, run_cases, summary
from android.fuzzed_bundles import SHARES, Fuzzed
from fuzz.cases import case_of

ONCE_FAILED = (71, 75, 128, 136, 171, 239, 308, 328, 452, 517, 758, 801, 2212)
"""Cases of the starter alone that raised something foreign when they were first run."""


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    """In a folder of its own: cases are linked from it."""
    return Path(shutil.copytree(STARTER, tmp_path / STARTER.name))


def test_forty_mutated_bundles(core_script: Path, starter: Path) -> None:
    assert core_script.exists()
    picture = picture_at(starter.parent / "picture.png")
    found = run_cases([starter], [*range(40), *ONCE_FAILED], seed=19, picture=picture)
    assert [each for each in found if each.outcome not in GOOD] == []
    told = summary(found, seed=19, sources=[starter], seconds=1.0)
    assert told["cases"] == 40 + len(ONCE_FAILED) and told["outcomes"]["answered"] > 3
    assert {case_of(number, SHARES) for number in range(100)} == set(SHARES)


@pytest.mark.slow
def test_five_hundred_mutated_bundles_of_four_families(core_script: Path, starter: Path) -> None:
    assert core_script.exists()
    sources = [starter, *(exported(family, starter.parent) for family in FAMILIES)]
    picture = picture_at(starter.parent / "picture.png")
    found = run_cases(sources, list(range(500)), seed=19, picture=picture)
    assert [each for each in found if each.outcome not in GOOD] == []
    told = summary(found, seed=19, sources=sources, seconds=1.0)
    assert told["cases"] == 500 and told["outcomes"]["answered"] > 50


def test_what_must_not_be_is_noticed() -> None:
    """Also a JVM that ends and one that never answers."""
    assert outcome_of({"text": "x"}) == ("answered", "")
    assert outcome_of({"error": "bad bundle"}) == ("refused", "bad bundle")
    assert outcome_of({"error": "bad\nbundle"})[0] == "several lines"
    assert outcome_of({"error": "a fault in core:\njava.lang.StackOverflowError"})[0] == "fault"
    assert outcome_of({"error": "it cannot be read (ClassCastException)"})[0] == "foreign"
    assert outcome_of({})[0] == "nothing"


@pytest.mark.parametrize(("script", "outcome"), [("exit 3", "crash"), ("while :; do :; done", "time")])
def test_a_process_that_ends_or_never_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, outcome: str
) -> None:
    file = tmp_path / "core.sh"
    file.write_text(f"#!/bin/sh\nread line\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setattr("android.fuzz_run.CORE", file)
    monkeypatch.setattr("fuzz.watched.MAX_SECONDS", 0.5)
    assert ask(core_process(), {})[0] == outcome


def test_a_pattern_that_tries_endlessly_many_ways_is_refused(core: Core, tmp_path: Path) -> None:
    """Sixty repetitions behind each other would take longer than the phone lives; common patterns are far below."""
    document = json.loads((STARTER / "tokenizer.json").read_text("utf-8"))
    for pattern, said in (("a*" * 60 + "!", "more than 1048576 ways"), ("(?:" * 33 + "a" + ")" * 33, "character")):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        file = tmp_path / f"{len(pattern)}.json"
        file.write_text(json.dumps(document | {"pre_tokenizer": split}), "utf-8")
        assert said in core.ask("ids", tokenizer=str(file), text="a" * 80)["error"]


def test_cases_are_seeded(starter: Path) -> None:
    for number in range(20):
        made = []
        for name in ("one", "two"):
            place = starter.parent / f"{name}{number}"
            Fuzzed([starter], 19).make(number, place)
            files = sorted(path for path in place.iterdir() if path.is_file())
            made.append([(path.name, path.read_bytes()) for path in files])
        assert made[0] == made[1]
