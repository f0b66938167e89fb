"""Score a model on a benchmark file, resumably, and compare two results question by question."""

from __future__ import annotations

from edge_mllm.measure.eval.answerer import Answerer, Reply
from edge_mllm.measure.eval.compare import compare_files
from edge_mllm.measure.eval.readers import read_task
from edge_mllm.measure.eval.report import write_report
from edge_mllm.measure.eval.run import RunSettings, run_task
from edge_mllm.measure.eval.summary import summarise
from edge_mllm.measure.eval.tasks import Task

__all__ = [
    "Answerer",
    "Reply",
    "RunSettings",
    "Task",
    "compare_files",
    "read_task",
    "run_task",
    "summarise",
    "write_report",
]
