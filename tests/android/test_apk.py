"""The APK as it is built here: what is in it, who signed it, and that its own bytecode gives the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from android.conftest import ROOT

pytestmark = pytest.mark.slow
_BUILD = ROOT / "android_demo" / "build"
_TOOLS = ("aapt", "aapt2", "apksigner", "zipalign", "proguard", "dexdump", "enjarify")
_PAGE = 16 * 1024


def _said(*command: Any) -> str:
    # dexdump writes the strings of the code as they are, among them ones that are no UTF-8.
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def apk(core_script: Path) -> Path:
    assert core_script.exists()
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    _said(_BUILD / "apk.sh")
    return _BUILD / "edge-mllm-demo.apk"


def test_signature_and_manifest(apk: Path) -> None:
    verified = _said("apksigner", "verify", "--verbose", "--min-sdk-version", "26", apk)
    for scheme in ("v2", "v3"):
        assert re.search(rf"{scheme} scheme .*: true", verified), verified
    badging = _said("aapt", "dump", "badging", apk)
    assert "sdkVersion:'26'" in badging and "name='org.edgemllm.demo'" in badging
    assert "uses-permission" not in badging
    assert "launchable-activity: name='org.edgemllm.demo.MainActivity'" in badging


def test_code_needs_nothing_that_phones_lack(apk: Path) -> None:
    code = _said("dexdump", "-d", apk)
    assert "invoke-custom" not in code and "invoke-polymorphic" not in code
    assert "Lorg/edgemllm/answer/Model;" in code and "Lorg/edgemllm/cli/" not in code


def test_libraries_are_mapped_from_the_file(apk: Path) -> None:
    """Stored at whole pages of 16 KiB, with segments that are aligned so too."""
    with zipfile.ZipFile(apk) as opened:
        libraries = [info for info in opened.infolist() if info.filename.endswith(".so")]
        assert [info.filename.rpartition("/")[0] for info in libraries] == ["lib/arm64-v8a"] * 2
        for info in libraries:
            assert info.compress_type == zipfile.ZIP_STORED
            header = info.header_offset
            with apk.open("rb") as stream:
                stream.seek(header + 26)
                name, extra = (int.from_bytes(stream.read(2), "little") for _ in range(2))
            assert (header + 30 + name + extra) % _PAGE == 0, info.filename


def test_the_starter_inside_is_whole(apk: Path) -> None:
    with zipfile.ZipFile(apk) as opened:
        folder = "assets/starter.edge"
        parts = json.loads(opened.read(f"{folder}/bundle.json"))["parts"]
        names = {name.rpartition("/")[2] for name in opened.namelist() if name.startswith(f"{folder}/")}
        for name, part in parts.items():
            if name != "decoder_gguf":
                data = opened.read(f"{folder}/{part['file']}")
                assert hashlib.sha256(data).hexdigest() == part["sha256"], name
                names.discard(part["file"])
        assert names == {"bundle.json"}


def test_the_code_that_ships_gives_the_same(apk: Path) -> None:
    """Its bytecode, turned back into classes, through the tests of pixels, ids, prompts, answers and damage."""
    assert apk.exists()
    _said(_BUILD / "dexed.sh")
    environment = {**os.environ, "EDGE_MLLM_CLASSES": str(ROOT / "build" / "android" / "dexed")}
    tests = [f"tests/android/test_{name}.py" for name in ("pixels", "ids", "prompts", "run", "fuzz", "shelf")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow",
        "-k",
        "not families",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
