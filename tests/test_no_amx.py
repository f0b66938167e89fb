"""The filter that takes AMX from a comparison: it refuses the registers and nothing else."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"
ASKS = """
import ctypes, subprocess, sys
sys.path.insert(0, sys.argv[1])
from no_amx import refuse_amx
refuse_amx()
asks = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(158, 0x1023, 18), ctypes.get_errno())"
print(subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="AMX is of x86-64")
def test_children_are_refused_the_registers() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS, str(PEERS)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-1", "1"], "EPERM, where a machine without AMX says EINVAL and one with it 0"
