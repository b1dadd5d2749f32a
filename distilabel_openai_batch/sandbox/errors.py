"""The error that every refusal of the API is, and the shape it has on the wire."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal, in the words and the shape of the OpenAI API.

    Attributes:
        status: the HTTP status.
        message: what went wrong, in the API's own words where they are known.
        type: the API's `error.type`.
        param: the parameter at fault, if one is.
        code: the API's `error.code`, if it gives one.
        headers: extra headers of the reply, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Returns what stands in the body of the reply."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
