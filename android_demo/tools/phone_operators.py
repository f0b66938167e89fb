"""Write what the phones' ONNX Runtime knows into the export, from the Python package of the same version.

PYTHONPATH=build/android/onnxruntime-1.26.0/python python android_demo/tools/phone_operators.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[2] / "export/edge_mllm_export/write/onnx/phone_operators.json"


def document() -> dict[str, Any]:
    """Version, newest opset, and the operators of ONNX Runtime's own domain."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    schemas = state.get_all_operator_schema()
    own = {
        schema.name: {"inputs": len(schema.inputs), "attributes": sorted(schema.attributes)}
        for schema in schemas
        if schema.domain == "com.microsoft"
    }
    return {
        "onnxruntime": onnxruntime.__version__,
        "opset": max(schema.since_version for schema in schemas if schema.domain == ""),
        "operators": dict(sorted(own.items())),
    }


if __name__ == "__main__":
    found = document()
    if found["onnxruntime"] != "1.26.0":
        raise SystemExit(f"this is ONNX Runtime {found['onnxruntime']}; see the first lines of this file")
    TARGET.write_text(json.dumps(found, separators=(",", ":")).replace('},"', '},\n"') + "\n", encoding="utf-8")
