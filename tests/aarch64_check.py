"""The wheel in an aarch64 Debian: it installs from wheels alone, and the starter answers with the same token ids.

    sudo python tests/aarch64_check.py            # or: make aarch64

debootstrap makes a Debian under build/aarch64 and qemu-user runs its programs, so this shows that things install and
agree, and nothing about speed. It needs root (chroot), the packages debootstrap, qemu-user-static and binfmt-support,
and about 1 GB; the first time takes some minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "aarch64"
SYSTEM, WHEELS, RESULT, MADE = BUILD / "debian", BUILD / "wheels", BUILD / "result.json", BUILD / "made"
RELEASE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,libgomp1"
"""Of a Debian or a Raspberry Pi OS Lite; libgomp1 for llama.cpp."""
ENGINES = ("onnx",)
"""Those that install from wheels."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
"""ONNX Runtime opens weights through /proc; in a mount namespace of its own nothing stays mounted afterwards. /sys is
left out: it describes the machine underneath, and ONNX Runtime crashes on an x86 topology."""
PROBE = """
import json, platform, sys
import edge_mllm
picture, question = "/check/label.png", "What does it say?"
model = edge_mllm.load(engine=sys.argv[1], threads=2)
pieces = list(model.stream(question, [picture]))
print(json.dumps({
    "machine": platform.machine(),
    "prompt_ids": [int(token) for token in model.prompt_ids(question, [picture])],
    "token_ids": [piece.token for piece in pieces],
    "text": pieces[-1].answer.text,
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
    missing = [name for name in ("debootstrap", "qemu-aarch64-static", "unshare") if shutil.which(name) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; type: apt-get install debootstrap qemu-user-static binfmt-support")
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


def fetch_wheels() -> Path:
    """Our wheel, and wheels of everything it needs; a package without a wheel for aarch64 is an error."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", WHEELS, ROOT)
    (wheel,) = WHEELS.glob("edge_mllm-*.whl")
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    target = ("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", *platforms)
    run(sys.executable, "-m", "pip", "download", "-q", "-c", ROOT / "constraints.txt", "-d", WHEELS, *target, wheel)
    return wheel


def install(wheel: Path) -> None:
    """Into an environment of the emulated system, without an index."""
    shutil.rmtree(SYSTEM / "check", ignore_errors=True)
    (SYSTEM / "check").mkdir()
    shutil.copytree(WHEELS, SYSTEM / "check/wheels")
    shutil.copy(ROOT / "starter/demo/label.png", SYSTEM / "check/label.png")
    (SYSTEM / "check/probe.py").write_text(PROBE)
    inside("python3", "-m", "venv", "/check/env")
    place = f"/check/wheels/{wheel.name}"
    inside("/check/env/bin/pip", "install", "-q", "--no-index", "--find-links", "/check/wheels", place)


def ask_here(engine: str) -> dict[str, object]:
    """The same question on this machine, with the checkout."""
    code = PROBE.replace("/check/label.png", str(ROOT / "starter/demo/label.png"))
    return dict(json.loads(run(sys.executable, "-c", code, engine, cwd=ROOT)))


def ask_there(engine: str) -> dict[str, object]:
    """The question in the emulated system."""
    return dict(json.loads(inside("/check/env/bin/python", "/check/probe.py", engine)))


def main() -> None:
    """Make, install, ask on both machines, compare."""
    require_tools()
    make_system()
    install(fetch_wheels())
    found = {}
    for engine in ENGINES:
        here, there = ask_here(engine), ask_there(engine)
        if there["machine"] != "aarch64":
            sys.exit(f"the emulated system says it is {there['machine']}")
        differ = [key for key in ("prompt_ids", "token_ids", "text") if here[key] != there[key]]
        if differ:
            sys.exit(f"{engine}: {', '.join(differ)} differ: {here} here, {there} on aarch64")
        found[engine] = there
        print(f"{engine}: aarch64 answered {there['text']!r}, token for token as here")
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
