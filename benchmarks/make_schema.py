"""Write ``edge_mllm/measure/bench/schema.json`` (JSON Schema draft 2020-12) from the dataclasses of a result file.

    python benchmarks/make_schema.py [FILE]

Descriptions are the docstrings of the classes and the string under each field.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

from edge_mllm.measure.bench.result import SCHEMA, Result, Run, Shares
from edge_mllm.measure.bench.stats import Summary

TARGET = Path(__file__).resolve().parent.parent / "edge_mllm" / "measure" / "bench" / "schema.json"
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def field_notes(kind: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    notes, last = {}, ""
    for node in getattr(body, "body", ()):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            notes[last] = " ".join(str(node.value.value).split())
        else:
            last = ""
    return notes


def schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of a type; dataclasses go into ``definitions``."""
    if dataclasses.is_dataclass(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}
            definitions[kind.__name__] = object_schema(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        rest = [schema_of(item, definitions) for item in inner if item is not type(None)]
        return {"anyOf": [*rest, {"type": "null"}]} if type(None) in inner else {"anyOf": rest}
    if origin is tuple:
        return {"type": "array", "items": schema_of(inner[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1], definitions)}
    return {"type": SCALARS[kind]}


def object_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """A dataclass as an object that allows no other keys."""
    hints, notes = typing.get_type_hints(kind), field_notes(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        properties[field.name] = schema_of(hints[field.name], definitions)
        if field.name in notes:
            properties[field.name] = {**properties[field.name], "description": notes[field.name]}
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def make_schema() -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    schema_of(Result, definitions)
    definitions["Result"]["properties"]["schema"] = {"const": SCHEMA}
    schema_of(Summary, definitions)
    run = definitions[Run.__name__]
    run["properties"]["summary"] = {
        "type": "object",
        "description": "Every metric summarised, derived from the samples.",
        "additionalProperties": {"$ref": "#/$defs/Summary"},
    }
    run["properties"]["shares"] = schema_of(Shares, definitions)
    run["required"] += ["summary", "shares"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        "$ref": "#/$defs/Result",
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(json.dumps(make_schema(), indent=1) + "\n", "utf-8")
