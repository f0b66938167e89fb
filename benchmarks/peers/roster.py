"""Who takes part, in which environment, and what is known to be impossible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    name: str
    script: str
    variant: str
    environment: str | None = None
    """A key of ENVIRONMENTS; None is the project's own."""
    families: tuple[str, ...] | None = None
    """Families it takes; None: all."""
    others: str = ""
    """Why it does not take other families."""
    memory: float = 0.7
    """What it takes to start, in sizes of the checkpoint in 16 bits; with too little free it is left out."""


_OPENVINO = "openvino==2026.4.1"
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "tower": (("-c", str(_ROOT / "constraints.txt"), _OPENVINO, "-e", str(_ROOT)),),
    "openvino": (
        (
            *("torch==2.13.0", "transformers==4.57.6", "optimum==2.3.0", "nncf==3.4.0", _OPENVINO),
            *(
                "openvino-tokenizers==2026.4.1.0",
                "pillow==13.0.0",
                "accelerate==1.15.0",
                "requests==2.34.2",
                "jinja2==3.1.6",
            ),
        ),
        # It asks for torchvision, which has no CPU build on the index and breaks transformers beside a CPU torch.
        ("--no-deps", "optimum-intel==2.2.0"),
    ),
}
"""Name -> arguments of one ``pip install`` after the other."""

_MTMD = ("idefics3", "qwen2_vl", "internvl", "qwen3_vl", "qwen3_5")
_INTEL = ("idefics3", "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "gemma3")
_INTEL_OTHERS = (
    "optimum-intel 2.2 has no model of this type; InternVL it takes in the original layout alone, which runs the "
    "checkpoint's own code"
)

ENTRIES = (
    Entry("edge-mllm gguf", "peer_edge_mllm.py", "gguf"),
    Entry("edge-mllm onnx", "peer_edge_mllm.py", "onnx"),
    Entry("edge-mllm onnx, int8 prompt", "peer_edge_mllm.py", "onnx+prompt"),
    Entry("edge-mllm onnx, int8 prompt, blocks of 64", "peer_edge_mllm.py", "onnx+prompt+b64"),
    Entry("edge-mllm onnx, int8 prompt, OpenVINO", "peer_edge_mllm.py", "onnx+prompt+openvino", "tower"),
    Entry("libmtmd q8_0", "peer_libmtmd.py", "q8_0", families=_MTMD),
    Entry("libmtmd f16", "peer_libmtmd.py", "f16", families=_MTMD),
    Entry("openvino w8", "peer_openvino.py", "w8", "openvino", _INTEL, _INTEL_OTHERS, memory=1.2),
    Entry("openvino w8a8", "peer_openvino.py", "w8a8", "openvino", _INTEL, _INTEL_OTHERS, memory=1.2),
    Entry("ort-genai int4", "peer_ort_genai.py", "int4"),
    Entry("torch bf16", "peer_transformers.py", "bf16", memory=1.3),
    Entry("torch int8", "peer_transformers.py", "int8", memory=3.2),
)
"""The first is what the ratios are taken to."""

LEFT_OUT = {
    "openvino-genai VLMPipeline": (
        "2026.4 refuses models of type idefics3; optimum-intel runs them and the others on the same engine"
    ),
    "MNN": (
        "the wheel (3.6.1) has a runtime but not llmexport, and its converter installs packages outside its own "
        "environment and reports its use over the network when it is imported, so it was not run"
    ),
    "llama-cpp-python's chat handlers": (
        "they call the same libmtmd and clear the cache at every call, so their second question costs what the first "
        "one does"
    ),
}
"""Peers that do not run here, and why."""


def choose(names: Iterable[str]) -> list[Entry]:
    """The entries with one of these names, or whose names begin with one; all of them without any."""
    wanted = [name.strip() for name in names if name.strip()]
    if not wanted:
        return list(ENTRIES)
    whole = {entry.name for entry in ENTRIES} & set(wanted)
    beginnings = tuple(name for name in wanted if name not in whole)
    return [entry for entry in ENTRIES if entry.name in whole or entry.name.startswith(beginnings)]
