"""Answers that are JSON of a given schema: a mask over the vocabulary before every token, made by llguidance.

The text has the form of ``json.dumps``: one line, ": " and ", " as separators. Free white space would let a small
model print blanks until the token limit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_mllm.answer.timings import Stopwatch
from edge_mllm.arrays import FloatArray
from edge_mllm.errors import ExtraMissingError, SchemaError
from edge_mllm.prompt.plain_text import unspeakable

_DEEPEST, _LARGEST = 64, 1 << 53
_WRAPPER = {"name", "description", "schema", "strict"}
"""Keys of what hosted services take in place of a schema."""
_KEYWORDS = frozenset((
    "$schema", "$id", "$ref", "$defs", "$comment", "$anchor", "definitions", "title", "description", "default",
    "examples", "type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "items",
    "prefixItems", "additionalItems", "contains", "minItems", "maxItems", "uniqueItems", "minContains",
    "maxContains", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "anyOf", "allOf", "oneOf", "not", "if", "then", "else",
    "unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType", "readOnly", "writeOnly",
    "deprecated", "nullable", "x-guidance",
))  # fmt: skip
_FORM = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}


class JsonGrammars:
    """Compiles schemas for one tokenizer; the last one is kept.

    Args:
        tokenizer: tokenizer.json of the bundle.
        n_vocab: Length of the logits.
        stop_token_ids: Tokens that end the model's turn; the first one is forced where the grammar has ended.
        image_token_id: Stands for a picture.
    """

    def __init__(self, tokenizer: Path, n_vocab: int, stop_token_ids: Sequence[int], image_token_id: int) -> None:
        self._file, self._n_vocab, self._stops = tokenizer, n_vocab, list(stop_token_ids)
        self._image_token_id = image_token_id
        self._tokenizer: Any = None
        self._last: tuple[str, str] | None = None

    def mask(self, schema: str, watch: Stopwatch) -> JsonMask:
        """A mask for one answer.

        Args:
            schema: JSON Schema as text.
            watch: Told what the grammar costs.

        Raises:
            ExtraMissingError: llguidance is not installed.
            SchemaError: It is no JSON, no schema, or uses what llguidance does not support.
        """
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise ExtraMissingError("json", "llguidance") from error
        if not self._stops:
            raise SchemaError("this model has no token that ends an answer")
        with watch.stage("load"):
            if self._tokenizer is None:
                self._tokenizer = self._read_tokenizer()
            if self._last is None or self._last[0] != schema:
                self._last = (schema, self._compile(schema))
            matcher = llguidance.LLMatcher(self._tokenizer, self._last[1], log_level=0)
        return JsonMask(matcher, self._n_vocab, self._stops[0], watch)

    def _read_tokenizer(self) -> Any:
        """Tokens that end, show or mark something are no way to spell their names: they are not part of the answer."""
        from llguidance import LLTokenizer

        text = unspeakable(self._file, (*self._stops, self._image_token_id))
        try:
            return LLTokenizer(text, n_vocab=self._n_vocab, eos_token=self._stops)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = f"llguidance does not take this model's tokenizer ({_line(str(error))})"
            raise SchemaError(reason) from error

    def _compile(self, schema: str) -> str:
        from llguidance import LLMatcher

        bare = read_schema(schema)
        try:
            grammar: str = LLMatcher.grammar_from_json_schema(bare, overrides=_FORM)
            fault = LLMatcher.validate_grammar(grammar, self._tokenizer)
        except (ValueError, TypeError) as error:
            fault = str(error)
        if fault:
            raise SchemaError(_line(fault))
        return grammar


def read_schema(text: str) -> str:
    """A schema as text, taken out of what hosted services wrap around it.

    Raises:
        SchemaError: It is no JSON object, or has no keyword of a schema, so that it would hold answers to nothing.
    """
    try:
        document = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"it is not JSON ({_line(str(error))})") from error
    if isinstance(document, dict) and document.get("type") == "json_schema":
        document = document.get("json_schema", document)
    if isinstance(document, dict) and "schema" in document and document.keys() <= _WRAPPER:
        document = document["schema"]
    if not isinstance(document, dict):
        raise SchemaError("it is no JSON object")
    if document and not document.keys() & _KEYWORDS:
        raise SchemaError(f"it has no keyword of JSON Schema, only {_line(', '.join(document))}")
    _check_values(document, 0)
    return json.dumps(document)


def _check_values(value: Any, depth: int) -> None:
    """Refuse what ends the process inside llguidance: numbers at the end of 64 bits, and documents without a bottom."""
    if depth > _DEEPEST:
        raise SchemaError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        raise SchemaError(f"the number {str(value)[:24]} in it is beyond 2^53, up to which JSON numbers are exact")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(each, depth + 1)


class JsonMask:
    """Follows one answer and leaves only tokens that keep it on the way to JSON of the schema."""

    def __init__(self, matcher: Any, n_vocab: int, stop: int, watch: Stopwatch) -> None:
        self._matcher, self._stop, self._watch = matcher, stop, watch
        self._bits = np.zeros((n_vocab + 31) // 32, np.uint32)
        self._n_vocab = n_vocab
        self._consumed = 0

    def __call__(self, logits: FloatArray, generated: Sequence[int]) -> FloatArray:
        """Logits float32 [n_vocab] with minus infinity where the grammar forbids a token.

        Raises:
            SchemaError: The grammar gave up (a schema that needs more work than llguidance's limits).
        """
        with self._watch.stage("grammar"):
            for token in generated[self._consumed :]:
                self._matcher.consume_token(token)
            self._consumed = len(generated)
            if self._matcher.is_error():
                raise SchemaError(f"llguidance gave up ({_line(self._matcher.get_error())})")
            if self._matcher.is_stopped():
                allowed = np.zeros(self._n_vocab, np.bool_)
                allowed[self._stop] = True
            else:
                self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
                flags = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=self._n_vocab)
                allowed = flags.view(np.bool_)
                if not allowed.any():
                    raise SchemaError("this model's vocabulary cannot spell what it asks for")
            return np.where(allowed, logits, np.float32(-np.inf))


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
