"""What a line at the prompt is: commands and their near misses, paths however they were dropped, and questions."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from edge_mllm.cli.talk.typed import COMMANDS, Command, Said, Unknown, read_typed, typed_paths


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    for name in ("my photo.JPG", "ünï.webp", "it's.png", "notes.txt", "100%.png"):
        shutil.copy(tmp_path / "photo.png", tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "name", "rest"),
    [
        ("/image a b", "/image", "a b"),
        ("  /IMAGE  'a b' ", "/image", "'a b'"),
        ("/bye", "/quit", ""),
        ("/exit", "/quit", ""),
        ("/?", "/help", ""),
        ("/save x.txt", "/save", "x.txt"),
    ],
)
def test_commands(line, name, rest):
    assert read_typed(line) == Command(name, rest)
    assert name in COMMANDS


@pytest.mark.parametrize(
    ("line", "word", "near"),
    [
        ("/imgae photo.png", "/imgae", "/image"),
        ("/img x", "/img", "/image"),
        ("/clera", "/clera", "/clear"),
        ("/exti", "/exti", "/quit"),
        ("/halp", "/halp", "/help"),
        ("/zzz", "/zzz", None),
        ("/", "/", None),
        ("/home/nobody/photo.png", "/home/nobody/photo.png", None),
    ],
)
def test_near_misses(line, word, near):
    assert read_typed(line) == Unknown(word, near)


def test_a_path_alone_is_a_picture_however_it_was_dropped(folder):
    spaced = folder / "my photo.JPG"
    escaped = str(spaced).replace(" ", "\\ ")
    for line in (
        f"{spaced}",
        f"'{spaced}'",
        f'"{spaced}"',
        escaped,
        f"file://{str(spaced).replace(' ', '%20')}",
        "~/my photo.JPG",
        "my photo.JPG",
        "./my photo.JPG ",
    ):
        said = read_typed(line)
        assert isinstance(said, Said) and said.text == "", line
        assert [Path(each).resolve() for each in said.pictures] == [spaced], line
    for name in ("ünï.webp", "it's.png", "100%.png"):
        assert read_typed(str(folder / name)) == Said("", (str(folder / name),))
    for no_picture in ("notes.txt", "folder.png", "none.png"):
        assert read_typed(no_picture) == Said(no_picture)


def test_paths_in_a_question_are_its_pictures(folder):
    photo, spaced = folder / "photo.png", folder / "my photo.JPG"
    assert read_typed(f"What is in {photo}?") == Said(f"What is in {photo}?")  # the question mark is part of the word
    assert read_typed(f"What is in {photo} ?") == Said("What is in ?", (str(photo),))
    both = read_typed(f"'{photo}' '{spaced}' Which is older?")
    assert both == Said("Which is older?", (str(photo), str(spaced)))
    escaped = str(spaced).replace(" ", "\\ ")
    assert read_typed(f"{escaped} What's the dog's name?") == Said("What's the dog's name?", (str(spaced),))


@pytest.mark.parametrize(
    "line",
    [
        "What's in the boss's photo.png?",
        "compare photo.png with photo.png",
        r"is C:\new\photo.png a path?",
        "1/2 or 3/4?",
        "",
        "'",
        "a" * 5000,
        "~nobody/x.png please",
        "nul\0byte.png",
    ],
)
def test_other_lines_are_questions_as_they_were_typed(folder, line):
    assert read_typed(line) == Said(line)


def test_paths_after_image(folder):
    assert typed_paths("my photo.JPG") == ["my photo.JPG"]
    assert typed_paths(r"my\ photo.JPG") == ["my photo.JPG"]
    assert typed_paths("'my photo.JPG' photo.png") == ["my photo.JPG", "photo.png"]
    assert typed_paths("~/photo.png") == [str(folder / "photo.png")]
    assert typed_paths("") == []
    assert typed_paths("https://example.com/a.png") == ["https://example.com/a.png"]
    with pytest.raises(ValueError, match="quotation"):
        typed_paths("'open")
