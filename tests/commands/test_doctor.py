"""``edge-mllm doctor``, end to end: what this machine can do, and an exit code that says whether all is well."""

from __future__ import annotations

import json
import os
import re

import onnxruntime
import pytest
from commands.command_line import run_command

pytestmark = pytest.mark.xdist_group("doctor-command")


@pytest.fixture(scope="module")
def report():
    done = run_command("doctor", "--json")
    assert done.code in (0, 1) and done.stderr == ""
    return done


def test_json_and_exit_code_say_the_same(report):
    document = json.loads(report.stdout)
    statuses = {finding["status"] for finding in document["findings"]}
    assert statuses <= {"ok", "info", "warning", "problem"}
    assert document["healthy"] == ("problem" not in statuses) == (report.code == 0)
    for finding in document["findings"]:
        assert finding["topic"] and finding["detail"]
        assert finding["remedy"] or finding["status"] != "problem"


def test_it_looks_at_what_answers_depend_on(report):
    found = {finding["topic"]: finding["detail"] for finding in json.loads(report.stdout)["findings"]}
    assert {"processor", "memory", "onnxruntime", "threads", "extras"} <= set(found)
    assert found["onnxruntime"].startswith(onnxruntime.__version__)
    (total,) = re.findall(r"of ([\d.]+) GiB", found["memory"])
    assert float(total) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 + 0.1


def test_the_table_has_a_line_a_finding(report):
    done = run_command("doctor")
    assert done.code in (0, 1) and done.stderr == ""
    lines = done.stdout.splitlines()
    for finding in json.loads(report.stdout)["findings"]:
        if finding["topic"] != "threads":  # what the load of the machine is changes between two processes
            assert any(line.split()[:2] == [finding["status"], finding["topic"].split()[0]] for line in lines)
    assert len(run_command("doctor", "--json-indent").stdout.splitlines()) > 1 == len(report.stdout.splitlines())
    assert any("instruction set" in line or "llama" in line for line in lines)


def test_wrong_usage():
    assert run_command("doctor", "now").code == 2
