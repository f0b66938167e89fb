"""What a request is answered with when it is refused or fails: OpenAI's error object and a status."""

from __future__ import annotations

from typing import Any

from edge_mllm.answer.limits import LimitError
from edge_mllm.errors import (
    ClosedError,
    ContextOverflowError,
    EdgeMLLMError,
    ExtraMissingError,
    ImageError,
    PromptError,
    SchemaError,
    SettingError,
)

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class RequestError(EdgeMLLMError):
    """A request that is not answered.

    Args:
        status: Of HTTP.
        message: For people.
        param: The field of the request that is at fault.
        code: For programs.
        retry_after_s: When to ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after_s = status, param, code, retry_after_s

    @property
    def kind(self) -> str:
        """OpenAI's type of error."""
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    @property
    def document(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        found = {}
        if self.retry_after_s is not None:
            found["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


class GoneError(Exception):
    """The client left; nobody reads an answer."""


_SETTINGS = frozenset((
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "logprobs", "detail",
    "max_image_tokens", "max_ttft", "max_memory", "prompt_lookup", "logit_bias", "options", "whole",
    "calibrate",
))  # fmt: skip
"""Settings of the library that are fields of requests."""
_MEANINGS: tuple[tuple[type[BaseException], int, str | None, str | None], ...] = (
    (ContextOverflowError, 400, "messages", "context_length_exceeded"),
    (ImageError, 400, "messages", "invalid_image"),
    (PromptError, 400, "messages", None),
    (SchemaError, 400, "response_format", None),
    (ExtraMissingError, 501, None, "not_installed"),
    (ClosedError, 503, None, "shutting_down"),
    (MemoryError, 503, None, "out_of_memory"),
)
"""Class of an error, its status, the field at fault and the code; the first that fits counts."""


def request_error(error: BaseException) -> RequestError:
    """What a request is told about an error of the library, or of the program."""
    if isinstance(error, RequestError):
        return error
    message = str(error).replace("`", "") or "there is not enough memory for this request"
    if isinstance(error, LimitError):
        return RequestError(400, message, param=error.limit, code="limit_exceeded")
    if isinstance(error, SettingError):
        return RequestError(400, message, param=_named_first(message))
    for kind, status, param, code in _MEANINGS:
        if isinstance(error, kind):
            return RequestError(status, message, param=param, code=code)
    return RequestError(500, "the server failed; its log says why", code="internal_error")


def _named_first(message: str) -> str | None:
    """The setting that a message begins with, as ``top_p is 7; it must be ...``."""
    word = message.split(" ", 1)[0]
    return word if word in _SETTINGS else None
