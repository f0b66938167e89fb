"""Large pages: which memory is taken, what the kernel makes of it, and what happens where it makes nothing of it."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
from typing import Any

import numpy as np
import pytest

import edge_mllm
from edge_mllm.cli.terminal.costs import cost_line
from edge_mllm.machine import large_pages
from edge_mllm.machine.large_pages import BLOCK, anonymous_ranges, collapse_resident
from edge_mllm.machine.memory import large_page_bytes, resident_bytes

MAPS = """\
55d0a0000000-55d0a0900000 rw-p 00000000 00:00 0                          [heap]
7f0000001000-7f0000600000 rw-p 00000000 00:00 0
7f0010000000-7f0010100000 rw-p 00000000 00:00 0
7f0020000000-7f0020800000 r--p 00000000 00:00 0
7f0030000000-7f0030800000 rw-p 00000000 08:01 42                         /weights.bin
7f0040000000-7f0040800000 rw-s 00000000 00:01 43                         /dev/zero (deleted)
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]
"""


class Kernel:
    """Stands for the C library of a kernel that answers ``madvise`` with an error."""

    def __init__(self, error: int) -> None:
        self.error, self.asked = error, 0

    def madvise(self, *_: Any) -> int:
        self.asked += 1
        ctypes.set_errno(self.error)
        return -1

    def mincore(self, _address: int, _length: int, found: Any) -> int:
        for page in range(len(found)):
            found[page] = 1
        return 0


def filled(blocks: int) -> np.ndarray:
    """Memory in small pages; numpy itself asks for large ones."""
    private = mmap.mmap(-1, (blocks + 1) * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(private, np.uint8)
    array[:] = 1
    return array


def test_own_memory_is_cut_to_whole_blocks() -> None:
    assert list(anonymous_ranges(MAPS)) == [
        (0x55D0A0000000, 0x55D0A0800000),
        (0x7F0000200000, 0x7F0000600000),
    ]


def test_resident_memory_moves_and_keeps_its_values() -> None:
    array = filled(16)
    array[::4096] = np.arange(array[::4096].size) % 251
    expected, before = array.copy(), large_page_bytes()
    found = collapse_resident()
    if found is None:
        pytest.skip("this kernel does not collapse memory")
    assert found.bytes >= 8 * BLOCK  # a kernel without free large pages leaves some
    assert (large_page_bytes() or 0) >= (before or 0) + 8 * BLOCK
    assert (array == expected).all()


def test_untouched_memory_stays_away() -> None:
    untouched = mmap.mmap(-1, 64 * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    before = resident_bytes() or 0
    collapse_resident()
    assert (resident_bytes() or 0) < before + 32 * BLOCK
    untouched.close()


def test_an_old_kernel_is_a_debug_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    array, kernel = filled(8), Kernel(errno.EINVAL)
    monkeypatch.setattr(large_pages, "_library", lambda: kernel)
    with caplog.at_level(logging.DEBUG, large_pages.__name__):
        assert collapse_resident() is None
    assert kernel.asked
    assert "does not collapse" in caplog.text
    assert array.all()


def test_blocks_that_are_busy_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    array, kernel = filled(8), Kernel(errno.EAGAIN)
    monkeypatch.setattr(large_pages, "_library", lambda: kernel)
    found = collapse_resident()
    assert found is not None
    assert kernel.asked > 1
    assert array.all()


def test_another_system_is_a_debug_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(large_pages, "_library", lambda: None)
    with caplog.at_level(logging.DEBUG, large_pages.__name__):
        assert collapse_resident() is None
    assert "no Linux" in caplog.text


def test_it_stops_when_it_is_asked_to() -> None:
    array = filled(8)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        collapse_resident(stop)
    assert array.all()


@pytest.mark.parametrize("engine", ["onnx", "gguf"])
def test_a_model_answers_the_same_and_says_what_moved(engine: str, tiny_bundle: Any) -> None:
    with edge_mllm.load(tiny_bundle, engine=engine, threads=1) as model:
        plain = model.generate("Hi", max_new_tokens=4)
        model.use_large_pages().wait()
        moved = model.generate("Hi", max_new_tokens=4)
    assert moved.text == plain.text
    assert "large_page_bytes" not in plain.to_dict()
    assert "large pages" not in cost_line(plain)
    if large_page_bytes() is not None:
        assert moved.to_dict()["large_page_bytes"] >= 0
        assert "in large pages" in cost_line(moved)
