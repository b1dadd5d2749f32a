"""Errors of the API, with the JSON shape that OpenAI gives them."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """Refusal of a call, with the wording and the shape of the OpenAI API.

    Attributes:
        status: HTTP status.
        message: `error.message`, in OpenAI's own words where they are known.
        type: `error.type`.
        param: `error.param`: name of the parameter at fault; `None` if no parameter is.
        code: `error.code`; `None` if the API gives no code.
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
        """Return the body of the reply."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
