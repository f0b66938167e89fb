"""An aarch64 Debian with our wheels, whose programs run in an emulator that counts their instructions."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from aarch64_check import (  # noqa: E402  (the tests' folder is not on the path)
    INSTRUCTIONS,
    SYSTEM,
    TARGET,
    WHEELS,
    compile_llama,
    fetch_wheels,
    make_system,
    require_tools,
    run,
)
from arm.cut_models import BUILD  # noqa: E402

HERE = Path(__file__).parent
EMULATOR, LOADER = "qemu-aarch64", "ld-linux-x86-64.so.2"
KINDS = ("all", "memory", "vector", "fma", "half_fma", "dot", "matrix")
"""Columns of count_instructions.c: of all instructions those that load or store, that compute with vectors or floats,
that multiply and add float32 or float16 vectors, sum products of bytes by fours (SDOT), multiply matrices of bytes
(SMMLA)."""
ENTER = """
mount -t proc proc "$0/proc" && mount --bind "$1" "$0/counts/models" || exit
system=$0
shift
exec chroot "$system" "$@"
"""
"""As in tests/aarch64_check.py, with the folder of models."""
_VARIABLES = {
    "HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
}  # fmt: skip


@dataclass(frozen=True)
class Processor:
    """What is emulated."""

    qemu: str
    """Value of QEMU's ``-cpu``."""
    llama: str
    """What llama.cpp is compiled for, as GCC's ``-march``."""
    about: str


PROCESSORS = {
    "i8mm": Processor(
        "max,sve=off,sme=off,pauth-impdef=on",
        f"{INSTRUCTIONS}+i8mm",
        "dotprod, i8mm and fp16 without SVE, as cores of phones since 2021 offer with vectors of 128 bits",
    ),
    "dotprod": Processor("cortex-a76", INSTRUCTIONS, "Cortex-A76, the cores of a Raspberry Pi 5: dotprod, no i8mm"),
}
Counts = dict[str, int]


class Emulated:
    """The system, made where it is not there yet.

    Args:
        processor: A name of :data:`PROCESSORS`.
        llama: Whether llama.cpp is needed too, which takes some minutes to compile.
    """

    def __init__(self, processor: str, *, llama: bool) -> None:
        require_tools()
        missing = [name for name in (EMULATOR, "gcc", "ldd", "aarch64-linux-gnu-gcc") if shutil.which(name) is None]
        if missing:
            sys.exit(f"missing: {', '.join(missing)}; type: apt-get install qemu-user gcc gcc-aarch64-linux-gnu")
        self.processor = PROCESSORS[processor]
        make_system()
        self._packages = self._install_packages(processor, llama=llama)
        self.version = run(EMULATOR, "--version").splitlines()[0]
        self._install_emulator()
        self._check_counts()

    def python(self, *arguments: str) -> tuple[str, list[Counts]]:
        """Run Python with our packages; what it printed, and what was counted up to each mark.

        Raises:
            SystemExit: It failed, or its marks are not numbered from 0 on.
        """
        shutil.copy(HERE / "guest.py", SYSTEM / "counts/guest.py")
        return self._run("/usr/bin/python3", *arguments)

    def _run(self, *command: str) -> tuple[str, list[Counts]]:
        host, marks = "/counts/host", SYSTEM / "counts/marks"
        models = BUILD / "models"
        models.mkdir(parents=True, exist_ok=True)
        emulator = (f"{host}/{LOADER}", "--library-path", host, f"{host}/{EMULATOR}", "-cpu", self.processor.qemu)
        plugin = ("-plugin", f"file={host}/libcount.so,out=/counts/marks")
        entered = ("unshare", "--mount", "sh", "-c", ENTER, SYSTEM, models)
        printed = run(*entered, *emulator, *plugin, *command, env=_VARIABLES | {"PYTHONPATH": self._packages})
        lines = [[int(word) for word in line.split()] for line in marks.read_text().splitlines()]
        if [line[0] for line in lines] != list(range(len(lines))):
            sys.exit(f"marks came in another order: {[line[0] for line in lines]}")
        return printed, [dict(zip(("threads", *KINDS), line[1:], strict=True)) for line in lines]

    def _install_packages(self, processor: str, *, llama: bool) -> str:
        """A folder with our wheel and what it needs, made once for a commit by this machine's pip: that is faster.

        Without llama.cpp, which is compiled for a processor, one of another processor does as well.
        """
        wanted = run("git", "-C", ROOT, "rev-parse", "HEAD:edge_mllm", "HEAD:constraints.txt")
        wanted += f"{self.processor.llama}\n" if llama else ""
        for name in (processor,) if llama else (processor, "plain", *PROCESSORS):
            mark = SYSTEM / "counts" / name / "made"
            if mark.exists() and mark.read_text().startswith(wanted):
                return f"/counts/{name}"
        name, compiled = processor if llama else "plain", BUILD / f"compiled-{processor}"
        packages = SYSTEM / "counts" / name
        shutil.rmtree(packages, ignore_errors=True)
        if llama:
            compile_llama(self.processor.llama, compiled)
        extra = "[gguf]" if llama else ""
        wheel = fetch_wheels(compiled, extra)
        places = ("--no-index", "--find-links", WHEELS, "--target", packages)
        run(sys.executable, "-m", "pip", "install", "-q", *places, *TARGET, f"{wheel}{extra}")
        (packages / "made").write_text(wanted)
        return f"/counts/{name}"

    def _install_emulator(self) -> None:
        """QEMU with the libraries it is linked with: the one that Debian links statically takes no plug-ins."""
        host = SYSTEM / "counts/host"
        shutil.rmtree(host, ignore_errors=True)
        host.mkdir(parents=True)
        (host.parent / "models").mkdir(exist_ok=True)
        program = Path(str(shutil.which(EMULATOR)))
        for file in (program, *map(Path, re.findall(r"(/\S+) \(0x", run("ldd", program)))):
            shutil.copy(file, host / file.name)
        flags = ("-O2", "-Wall", "-Wextra", "-Werror")
        run("gcc", *flags, "-shared", "-fPIC", "-o", host / "libcount.so", HERE / "count_instructions.c")
        cross = ("aarch64-linux-gnu-gcc", *flags, "-static", "-march=armv8.2-a+dotprod+i8mm+fp16")
        run(*cross, "-o", host / "known", HERE / "known_counts.c")

    def _check_counts(self) -> None:
        """A loop of known instructions is counted exactly, where the processor has all of them."""
        if "i8mm" not in self.processor.llama:
            return
        _, marks = self._run("/counts/host/known")
        first, second = (difference(*marks[n : n + 2]) for n in (0, 1))
        expected = {"all": 14, "memory": 2, "vector": 10, "fma": 2, "half_fma": 1, "dot": 4, "matrix": 3}
        found = {kind: (second[kind] - first[kind]) / 1000 for kind in KINDS}
        if found != expected:
            sys.exit(f"the plug-in counts {found} instructions a turn of known_counts.c, which has {expected}")


def difference(before: Counts, after: Counts) -> Counts:
    """What was executed between two marks."""
    return {kind: after[kind] - before[kind] for kind in KINDS}
