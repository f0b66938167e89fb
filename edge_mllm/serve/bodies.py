"""Bodies of requests as typed values, and what a client is told about one that cannot be read."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

import msgspec

from edge_mllm.serve.errors import RequestError

T = TypeVar("T", bound=msgspec.Struct)
_PLACE = re.compile(r" - at `(?P<key>key )?(?:in )?`?\$(?P<path>[^`]*)`")
_FIELD = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>[^`]*)`")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object of a request. Fields that are not known are refused: what was asked for and not done is no success."""


def read_body(kind: type[T], data: bytes) -> T:
    """A body as a typed value.

    Raises:
        RequestError: It is not JSON (400), or not of this form (400); the error names the field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _refused(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply", code="invalid_json") from None


def _refused(message: str, kind: type[msgspec.Struct]) -> RequestError:
    place, field = _PLACE.search(message), _FIELD.search(message)
    path = place["path"].lstrip(".") if place else ""
    if field is None:
        told = message.replace(" - at `$.", " - at `")
        return RequestError(400, told, param=path or None, code="invalid_type")
    name = field["name"]
    where = f"{path}.{name}" if path else name
    if field["fault"].startswith("missing"):
        return RequestError(400, f"the field '{where}' is missing", param=where, code="missing_required_parameter")
    near = difflib.get_close_matches(name, _names(kind), 1) if not path else []
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return RequestError(400, f"there is no field '{where}'{hint}", param=where, code="unknown_parameter")


def _names(kind: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def encode(document: Any) -> bytes:
    """A JSON document as bytes."""
    return msgspec.json.encode(document)
