"""``edge-mllm chat`` in a terminal: editing, history, Ctrl-C, dropped paths, commands, going on, a narrow window."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from commands.command_line import DEMO, command_environment

pytestmark = pytest.mark.xdist_group("chat-command")
LABEL = DEMO / "label.png"
UP, LEFT, CTRL_A, CTRL_C, CTRL_D, ENTER = "\x1b[A", "\x1b[D", "\x01", "\x03", "\x04", "\r"
PROMPT = "> "
_MARKS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, *args: object, columns: int = 80) -> None:
        self._own, theirs = pty.openpty()
        command = [sys.executable, "-m", "edge_mllm", "chat", *map(str, args)]
        environment = command_environment() | {"TERM": "xterm", "COLUMNS": str(columns), "INPUTRC": "/dev/null"}
        os.set_blocking(self._own, False)
        self._process = subprocess.Popen(
            command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)
        self.first = self.until(PROMPT)

    def until(self, end: str, seconds: float = 60) -> str:
        """What is shown until a text comes; without marks of the terminal."""
        shown, limit = "", time.monotonic() + seconds
        while not _MARKS.sub("", shown).endswith(end):
            assert time.monotonic() < limit, shown
            if select.select([self._own], [], [], 0.2)[0]:
                try:
                    shown += os.read(self._own, 65536).decode(errors="replace")
                except OSError:
                    break
        return _MARKS.sub("", shown)

    def type(self, keys: str) -> str:
        """Type, and return what is shown until the next prompt."""
        os.write(self._own, keys.encode())
        return self.until(f"\n{PROMPT}")

    def show(self, keys: str) -> None:
        """Type, until it is shown."""
        os.write(self._own, keys.encode())
        self.until(keys)

    def end(self, keys: str = CTRL_D) -> int:
        os.write(self._own, keys.encode())
        limit = time.monotonic() + 30
        while self._process.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(OSError):
                os.read(self._own, 65536)
            time.sleep(0.02)
        os.close(self._own)
        return self._process.wait(5)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_lines_are_edited_and_asked_again_with_up(tmp_path):
    chat = Terminal("-i", LABEL, columns=120)
    assert "/help shows what can be typed" in chat.first
    shown = chat.type("Read the wrd." + LEFT * 3 + "o" + ENTER)
    assert "Coffee" in shown and "^[" not in shown
    again = chat.type(UP + ENTER)
    assert "Read the word." in again and "reused" in again
    assert chat.end() == 0


def test_ctrl_c_clears_the_line_and_does_not_end_the_chat():
    chat = Terminal("-i", LABEL)
    for _ in range(2):
        chat.show("half a question")
        time.sleep(0.3)  # a signal that comes before readline waits again is seen with the next key only
        assert "/quit or Ctrl-D ends" in chat.type(CTRL_C)
    assert "Coffee" in chat.type("Read the word." + ENTER)
    assert chat.end("/quit" + ENTER) == 0


def test_a_dropped_path_is_a_picture_and_commands_have_near_misses(tmp_path):
    spaced = tmp_path / "my photo.png"
    shutil.copy(LABEL, spaced)
    chat = Terminal()
    assert "1 picture for the next question" in chat.type(f"'{spaced}' " + ENTER)
    assert "Coffee" in chat.type("Read the word." + ENTER)
    assert "did you mean /image?" in chat.type("/imgae x.png" + ENTER)
    helped = chat.type("/help" + ENTER)
    assert all(name in helped for name in ("/image", "/clear", "/save", "/quit"))
    assert "saved as text" in chat.type(f"/save {tmp_path}/said.txt" + ENTER)
    assert (tmp_path / "said.txt").read_text() == "You: [picture] Read the word.\n\nModel: Coffee\n\n"
    assert "exists; give another name" in chat.type(f"/save {tmp_path}/said.txt" + ENTER)
    assert "No such file" in chat.type(f"/save {tmp_path}/none/said.txt" + ENTER)
    assert "begins anew" in chat.type("/clear" + ENTER)
    assert "image tokens" not in chat.type("Read the word." + ENTER)
    assert chat.end() == 0


def test_going_on_shows_what_was_said(tmp_path):
    file = tmp_path / "talk.chat"
    first = Terminal("-i", LABEL, "--chat-file", file, "--system", "You are a cashier.")
    first.type("Read the word." + ENTER)
    assert first.end() == 0
    second = Terminal("--chat-file", file)
    assert "You: [picture] Read the word." in second.first and "Model: Coffee" in second.first
    assert "$4.60" in second.type("What is the price?" + ENTER)
    assert "Read the word." in second.type(UP + UP + ENTER)
    assert second.end() == 0


def test_sixty_columns():
    chat = Terminal("-i", LABEL, columns=60)
    shown = chat.first + chat.type("Read the word." + ENTER) + chat.type("/help" + ENTER)
    costs = next(line for line in shown.splitlines() if "first token" in line)
    assert len(costs) <= 60 and "tok/s" in costs
    assert chat.end() == 0
