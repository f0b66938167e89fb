"""Random requests from the server's own description: none fails, and what is answered is what is described."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from serve.server_process import LABEL, QUESTION, asking, serving

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz(served, folder, phases, *options):
    """Send random requests; how many of each status were answered."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json", "--checks", CHECKS,
        "--phases", phases, "--seed", "7", "--no-color", "--request-timeout", "60", "--workers", "2", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return {
        status: sum(int(count) for _, count in counts)
        for status, counts in itertools.groupby(
            sorted(re.findall(r'status="(\d+)"} (\d+)', served.get("/metrics").text)), key=lambda each: each[0]
        )
    }


@pytest.mark.parametrize(
    ("phases", "least", "options"),
    [
        ("fuzzing", 4, ("--max-examples", "8", "--max-time", "10")),
        pytest.param("coverage,fuzzing", 1000, ("--max-examples", "100"), marks=pytest.mark.slow),
    ],
)
def test_random_requests(tmp_path, phases, least, options):
    with serving("--max-answer-tokens", 4, "--queue", 64) as running:
        sent = fuzz(running, tmp_path, phases, *options)
        assert "500" not in sent and sum(sent.values()) > least and sent["200"] and sent["400"], sent
        assert running.get("/health").json()["waiting"] == 0
        assert "Cof" in running.post("/v1/chat/completions", asking(QUESTION, LABEL)).text
