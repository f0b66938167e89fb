"""Small multimodal language models on edge devices: pictures and a prompt in, text and its costs out."""

from __future__ import annotations

import importlib
import os
import typing

from edge_mllm.errors import EdgeMLLMError

if typing.TYPE_CHECKING:
    from edge_mllm.answer.answer import Answer, Piece
    from edge_mllm.answer.answer_plan import AnswerPlan
    from edge_mllm.answer.deciding.decision import Decision, DecisionTimings, DecisionUsage, OptionScore
    from edge_mllm.answer.deciding.settings import DecideOptions
    from edge_mllm.answer.decoding.sampling import SamplingOptions
    from edge_mllm.answer.request import GenerateOptions
    from edge_mllm.picture.reduction.spec import TokenReduction
    from edge_mllm.picture.tiling import Preprocessed
    from edge_mllm.session.chat import Chat
    from edge_mllm.session.load import load
    from edge_mllm.session.opening import LoadOptions
    from edge_mllm.session.preparation import Preparation
    from edge_mllm.session.session import Model

__all__ = [
    "load",
    "Model",
    "Chat",
    "GenerateOptions",
    "LoadOptions",
    "SamplingOptions",
    "TokenReduction",
    "Answer",
    "Piece",
    "AnswerPlan",
    "DecideOptions",
    "Decision",
    "DecisionTimings",
    "DecisionUsage",
    "OptionScore",
    "Preparation",
    "Preprocessed",
    "EdgeMLLMError",
]

_HOMES = {
    "load": "session.load",
    "Model": "session.session",
    "Chat": "session.chat",
    "GenerateOptions": "answer.request",
    "LoadOptions": "session.opening",
    "SamplingOptions": "answer.decoding.sampling",
    "TokenReduction": "picture.reduction.spec",
    "Answer": "answer.answer",
    "Piece": "answer.answer",
    "AnswerPlan": "answer.answer_plan",
    "DecideOptions": "answer.deciding.settings",
    "Decision": "answer.deciding.decision",
    "DecisionTimings": "answer.deciding.decision",
    "DecisionUsage": "answer.deciding.decision",
    "OptionScore": "answer.deciding.decision",
    "Preparation": "session.preparation",
    "Preprocessed": "picture.tiling",
}
"""Imported when they are first asked for, so that the command line starts, and can be interrupted, at once."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_mllm' has no attribute '{name}'")
    found = getattr(importlib.import_module(f"edge_mllm.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Read when ONNX Runtime (1.29 and later: a device id and a database in the user's cache folder) and huggingface_hub
# are imported. This package imports both inside functions only, so they find it set; a user's own value stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
