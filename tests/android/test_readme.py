"""The five lines of Java in android_demo/README.md compile against the jar alone and answer."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from android.conftest import ORT, ROOT

_IMPORTS = (
    *("java.io.File", "java.util.Collections", "org.edgemllm.answer.*", "org.edgemllm.bundle.Bundle"),
    *("org.edgemllm.picture.Rgb", "org.edgemllm.picture.file.PictureFile"),
)


def test_five_lines_in_another_app(core_script: Path, tmp_path: Path) -> None:
    assert core_script.exists()
    (lines,) = re.findall(r"```java\n(.*?)```", (ROOT / "android_demo" / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(lines.splitlines()) == 5
    imports = "".join(f"import {name};\n" for name in _IMPORTS)
    source = f"{imports}class App {{ public static void main(String[] a) throws Exception {{\n{lines}}} }}\n"
    (tmp_path / "App.java").write_text(source, "utf-8")
    jars = f"{ROOT / 'build' / 'android' / 'edge-mllm-core.jar'}:{ORT / 'onnxruntime.jar'}"
    compile_it = ["javac", "--release", "8", "-nowarn", "-cp", jars, "-d", tmp_path, tmp_path / "App.java"]
    subprocess.run(compile_it, check=True)
    native = ORT / "jvm"
    libraries = {"LD_LIBRARY_PATH": str(native), "LD_PRELOAD": str(native / "libnnapi.so")}
    command = ["java", f"-Donnxruntime.native.path={native}", "-cp", f"{tmp_path}:{jars}", "App"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **libraries}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(" Coffee $4.60\n{"), done.stderr
