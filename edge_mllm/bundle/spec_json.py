"""bundle.json as Python values and back: strict, by the types of :mod:`edge_mllm.bundle.spec` themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge_mllm.bundle.spec import SCHEMA_VERSION, BundleSpec
from edge_mllm.errors import BundleError, BundleVersionError
from edge_mllm.typed_json import FieldError, leave_out, plain, read_typed


def read_spec(data: Any, path: str | Path = "bundle.json") -> BundleSpec:
    """Build a :class:`BundleSpec` from parsed JSON.

    Args:
        data: What ``json.loads`` gave.
        path: Where it came from, for the message of an error.

    Raises:
        BundleVersionError: Another schema version.
        BundleError: A missing or unknown field or one of a wrong type; the message names the field.
    """
    if not isinstance(data, dict):
        raise BundleError(path, "bundle.json is not a JSON object")
    if data.get("schema_version") != SCHEMA_VERSION or isinstance(data.get("schema_version"), bool):
        raise BundleVersionError(path, data.get("schema_version"), SCHEMA_VERSION)
    try:
        spec: BundleSpec = read_typed(BundleSpec, data, "")
    except FieldError as error:
        raise BundleError(path, f"bundle.json, {error}") from None
    return spec


def spec_to_dict(spec: BundleSpec) -> dict[str, Any]:
    """The JSON object of a spec; ``read_spec(spec_to_dict(spec)) == spec``."""
    data: dict[str, Any] = plain(dataclasses.asdict(spec))
    leave_out(spec, data)
    return data
