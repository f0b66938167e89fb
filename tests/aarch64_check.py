"""The wheel in an aarch64 Debian: it installs, and the starter answers with the same token ids on both engines.

    sudo python tests/aarch64_check.py            # or: make aarch64

The ONNX engine installs from published wheels alone; for the GGUF engine llama-cpp-python is cross-compiled to a wheel,
for the processor of a Raspberry Pi 5. debootstrap makes a Debian under build/aarch64 and qemu-user runs its programs,
so this shows that things install and agree, and nothing about speed. It needs root (chroot), the packages debootstrap,
qemu-user-static, binfmt-support and g++-aarch64-linux-gnu, and about 1 GB; the first time takes some minutes. What it
found goes to benchmarks/results/aarch64.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from edge_mllm.machine.fingerprint import checkout_commit

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "aarch64"
SYSTEM, WHEELS, COMPILED, MADE = BUILD / "debian", BUILD / "wheels", BUILD / "compiled", BUILD / "made"
RESULT = ROOT / "benchmarks" / "results" / "aarch64.json"
RELEASE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,libgomp1"
"""Of a Debian or a Raspberry Pi OS Lite; libgomp1 for llama.cpp."""
ENGINES = {"onnx": "", "gguf": "[gguf]"}
"""Engine -> the extra that is installed before it is asked."""
INSTRUCTIONS = "armv8.2-a+dotprod+fp16"
"""Of a Raspberry Pi 5."""
CROSS = {
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "aarch64",
    "CMAKE_C_COMPILER": "aarch64-linux-gnu-gcc",
    "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
    "GGML_NATIVE": "OFF",
}
PLATFORMS = ("linux_aarch64", *(f"manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 17)), "manylinux2014_aarch64")
TARGET = (
    "--only-binary=:all:",
    *("--python-version", "3.11", "--implementation", "cp"),
    *(part for name in PLATFORMS for part in ("--platform", name)),
)
"""Options of pip for another machine than this one."""
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
"""ONNX Runtime opens weights through /proc; in a mount namespace of its own nothing stays mounted afterwards. /sys is
left out: it describes the machine underneath, and ONNX Runtime crashes on an x86 topology."""
PROBE = """
import json, platform, sys
import edge_mllm
from edge_mllm.machine.fingerprint import package_versions
from edge_mllm.measure.doctor.gathering import gather_facts
llama = gather_facts().llama
picture, question = "/check/label.png", "What does it say?"
model = edge_mllm.load(engine=sys.argv[1], threads=2)
pieces = list(model.stream(question, [picture]))
print(json.dumps({
    "machine": platform.machine(),
    "prompt_ids": [int(token) for token in model.prompt_ids(question, [picture])],
    "token_ids": [piece.token for piece in pieces],
    "text": pieces[-1].answer.text,
    "versions": package_versions(),
    "llama_features": sorted(llama.features) if llama else [],
}))
"""


def run(*command: str | Path, **keywords: object) -> str:
    """Run a command and return its standard output; stop with its errors when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **keywords)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return str(done.stdout)


def inside(*command: str) -> str:
    """Run a command in the emulated system."""
    plain = {"HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return run("unshare", "--mount", "sh", "-c", ENTER, SYSTEM, *command, env=plain)


def require_tools() -> None:
    """Say what is missing before anything is made."""
    if os.geteuid():
        sys.exit("this needs root: chroot")
    needed = ("debootstrap", "qemu-aarch64-static", "unshare", CROSS["CMAKE_CXX_COMPILER"])
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        packages = "debootstrap qemu-user-static binfmt-support g++-aarch64-linux-gnu"
        sys.exit(f"missing: {', '.join(missing)}; type: apt-get install {packages}")
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        sys.exit("the kernel does not start aarch64 programs; type: update-binfmts --enable qemu-aarch64")


def make_system() -> None:
    """A minimal Debian, once."""
    if MADE.exists():
        return
    shutil.rmtree(SYSTEM, ignore_errors=True)
    SYSTEM.parent.mkdir(parents=True, exist_ok=True)
    run("debootstrap", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}", RELEASE, SYSTEM, MIRROR)
    MADE.touch()


def compile_llama(instructions: str = INSTRUCTIONS, compiled: Path = COMPILED) -> None:
    """A wheel of llama-cpp-python for aarch64 in ``compiled``, once for a version and a set of instructions."""
    pin = next(line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("llama_cpp_python=="))
    mark = compiled / f"{pin} {instructions}"
    if mark.exists():
        return
    shutil.rmtree(compiled, ignore_errors=True)
    compiled.mkdir(parents=True)
    settings = CROSS | {"GGML_CPU_ARM_ARCH": instructions}
    cross = {
        "CMAKE_ARGS": " ".join(f"-D{name}={value}" for name, value in settings.items()),
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",  # the wheel's tag
    }
    arguments = ("-q", "--no-deps", "--no-cache-dir", "--no-binary", ":all:", "-w", compiled, pin)
    run(sys.executable, "-m", "pip", "wheel", *arguments, env=os.environ | cross)
    mark.touch()


def fetch_wheels(compiled: Path = COMPILED, extra: str = "[gguf]") -> Path:
    """Our wheel, and wheels of all that it needs with an extra; a package without a wheel for aarch64 is an error."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", WHEELS, ROOT)
    (wheel,) = WHEELS.glob("edge_mllm-*.whl")
    places = ("-c", ROOT / "constraints.txt", "--find-links", compiled, "-d", WHEELS)
    run(sys.executable, "-m", "pip", "download", "-q", *places, *TARGET, f"{wheel}{extra}")
    return wheel


def make_environment() -> None:
    """An empty one in the emulated system, with the wheels beside it."""
    shutil.rmtree(SYSTEM / "check", ignore_errors=True)
    (SYSTEM / "check").mkdir()
    shutil.copytree(WHEELS, SYSTEM / "check/wheels")
    shutil.copy(ROOT / "starter/demo/label.png", SYSTEM / "check/label.png")
    (SYSTEM / "check/probe.py").write_text(PROBE)
    inside("python3", "-m", "venv", "/check/env")


def install(wheel: Path, extra: str) -> None:
    """The wheel with an extra, without an index."""
    name = f"/check/wheels/{wheel.name}{extra}"
    inside("/check/env/bin/pip", "install", "-q", "--no-index", "--find-links", "/check/wheels", name)


def ask_here(engine: str) -> dict[str, object]:
    """The same question on this machine, with the checkout."""
    code = PROBE.replace("/check/label.png", str(ROOT / "starter/demo/label.png"))
    return dict(json.loads(run(sys.executable, "-c", code, engine, cwd=ROOT)))


def ask_there(engine: str) -> dict[str, object]:
    """The question in the emulated system."""
    return dict(json.loads(inside("/check/env/bin/python", "/check/probe.py", engine)))


def compare(engine: str, wheel: Path) -> dict[str, object]:
    """Install what the engine needs; the answer there must be the answer here."""
    install(wheel, ENGINES[engine])
    here, there = ask_here(engine), ask_there(engine)
    if there["machine"] != "aarch64":
        sys.exit(f"the emulated system says it is {there['machine']}")
    differ = [key for key in ("prompt_ids", "token_ids", "text") if here[key] != there[key]]
    if differ:
        sys.exit(f"{engine}: {', '.join(differ)} differ: {here} here, {there} on aarch64")
    print(f"{engine}: aarch64 answered {there['text']!r}, token for token as here")
    there["prompt_tokens"] = len(there.pop("prompt_ids"))  # type: ignore[arg-type]
    return there | {"same_token_ids_as": here["machine"]}


def main() -> None:
    """Make, install, ask on both machines, compare."""
    require_tools()
    make_system()
    compile_llama()
    wheel = fetch_wheels()
    make_environment()
    result = {
        "schema": "edge-mllm-aarch64/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": checkout_commit(),
        "system": f"Debian {RELEASE} in {run('qemu-aarch64-static', '--version').splitlines()[0]}",
        "llama_cpp_built_for": INSTRUCTIONS,
        "engines": {engine: compare(engine, wheel) for engine in ENGINES},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
