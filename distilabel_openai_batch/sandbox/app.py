"""ASGI application: routes of the API under `/v1`, and control routes of the sandbox under `/sandbox`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from .dialect import Dialect
from .errors import ApiError
from .faults import AnyFault
from .files import StoredFile
from .middleware import SandboxMiddleware
from .organization import Organization
from .records import Call
from .same_site import SameSiteMiddleware
from .settings import Settings
from .webhooks import send_webhook

_FAULT: TypeAdapter[AnyFault] = TypeAdapter(AnyFault)
_Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    settings: Settings | None = None,
    clock: Callable[[], float] = time.time,
    on_call: Callable[[Call], None] | None = None,
) -> Starlette:
    """Return a sandbox as an ASGI application.

    Args:
        settings: settings of the sandbox; `None` for the defaults of `Settings`.
        clock: function that returns the time, in seconds since the epoch.
        on_call: function that receives each call of the API after its reply; `None` for none.
    """
    handlers = SandboxHandlers(Settings() if settings is None else settings, clock)
    return Starlette(
        routes=handlers.routes(),
        middleware=[
            Middleware(SameSiteMiddleware),
            Middleware(SandboxMiddleware, organization=lambda: handlers.organization, on_call=on_call),
        ],
        exception_handlers={
            ApiError: _reply_api_error,
            HTTPException: handlers.reply_http_error,
            ClientDisconnect: _reply_to_disconnected,
        },
        lifespan=handlers.lifespan,
    )


class _FileContent(FileResponse):
    """Content of a file, sent in pieces of 1 MiB: each piece costs a change of threads."""

    chunk_size = 1 << 20


class SandboxHandlers:
    """Handlers of the routes: they translate between HTTP and the organization, and hold no rule of the API.

    Attributes:
        organization: organization that is served; a reset replaces the organization.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.organization = Organization(settings, clock)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Close the organization when the server stops."""
        yield
        self.organization.close()

    def routes(self) -> list[Route]:
        """Return every route."""
        routes: list[tuple[str, str, _Handler]] = [
            ("POST", "/v1/files", self.create_file),
            ("GET", "/v1/files", self.list_files),
            ("GET", "/v1/files/{id}", self.retrieve_file),
            ("GET", "/v1/files/{id}/content", self.file_content),
            ("DELETE", "/v1/files/{id}", self.delete_file),
            ("POST", "/v1/batches", self.create_batch),
            ("GET", "/v1/batches", self.list_batches),
            ("GET", "/v1/batches/{id}", self.retrieve_batch),
            ("POST", "/v1/batches/{id}/cancel", self.cancel_batch),
            ("POST", "/v1/chat/completions", self.answer),
            ("POST", "/v1/completions", self.answer),
            ("POST", "/v1/responses", self.answer),
            ("POST", "/v1/moderations", self.answer),
            ("POST", "/v1/images/generations", self.answer),
            ("POST", "/v1/embeddings", self.answer),
            ("GET", "/sandbox/settings", self.settings),
            ("PATCH", "/sandbox/settings", self.configure),
            ("POST", "/sandbox/reset", self.reset),
            ("POST", "/sandbox/faults", self.add_fault),
            ("DELETE", "/sandbox/faults", self.clear_faults),
            ("POST", "/sandbox/settle", self.settle),
            ("POST", "/sandbox/webhooks", self.send_webhook),
            ("GET", "/sandbox/calls", self.calls),
            ("GET", "/sandbox/books", self.books),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in routes]

    def _authenticate(self, request: Request) -> str:
        self.organization.check_headers(request.headers)
        try:
            return self.organization.authenticate(request.headers.get("authorization"))
        except ApiError as refusal:
            raise self._dialect.bad_key(refusal) from None

    @property
    def _dialect(self) -> Dialect:
        return self.organization.state.settings.dialect

    def _reply(self, content: dict[str, Any]) -> Response:
        return _json(self._dialect.reply(content))

    async def reply_http_error(self, request: Request, error: Exception) -> Response:
        """Reply to a call without a route, or with a method that its path does not have."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 404:
            return await _reply_api_error(request, self._dialect.no_such_path(request.method, request.url.path))
        message = str(error.detail) if isinstance(error, HTTPException) else "The server had an error."
        return _json(ApiError(status, message).body(), status)

    # /v1/files

    async def create_file(self, request: Request) -> Response:
        """Store an upload; the form parser spools the content to disk."""
        owner = self._authenticate(request)
        async with request.form(max_files=1) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                message = "Missing required parameter: 'file'."
                raise ApiError(400, message, param="file", code="missing_required_parameter")
            purpose = form.get("purpose")
            file = await run_in_threadpool(
                self.organization.add_file,
                upload.file,
                "" if upload.filename is None else upload.filename,
                self._dialect.openai_purpose(purpose if isinstance(purpose, str) else None, "file_name" in form),
                _expires_after(form),
                owner,
                _extra_fields(form),
            )
        return self._reply(self._file_object(file))

    def _file_object(self, file: StoredFile) -> dict[str, Any]:
        state = self.organization.state
        return state.settings.dialect.file_object(file.as_json(), state.clock() - file.created_at)

    async def list_files(self, request: Request) -> Response:
        """List files, newest first unless the query says `order=asc`."""
        purpose = self._dialect.openai_purpose(request.query_params.get("purpose"))
        files = self.organization.list_files(self._authenticate(request), purpose)
        if request.query_params.get("order") == "asc":
            files.reverse()
        after = request.query_params.get("after")
        if after is not None:
            positions = [position for position, file in enumerate(files) if file.id == after]
            files = files[positions[0] + 1 :] if positions else []
        limit = _limit(request, default=10_000, maximum=10_000)
        return self._reply(_page([self._file_object(file) for file in files[:limit]], len(files) > limit))

    async def retrieve_file(self, request: Request) -> Response:
        """Return a file object."""
        file = self.organization.get_file(request.path_params["id"], self._authenticate(request))
        return self._reply(self._file_object(file))

    async def file_content(self, request: Request) -> Response:
        """Send the content of a file, or the range that the header `Range` names."""
        file = self.organization.get_file(request.path_params["id"], self._authenticate(request))
        return _FileContent(file.path, media_type="application/octet-stream", filename=file.filename)

    async def delete_file(self, request: Request) -> Response:
        """Delete a file."""
        file_id = request.path_params["id"]
        self.organization.delete_file(file_id, self._authenticate(request))
        return self._reply({"id": file_id, "object": "file", "deleted": True})

    # /v1/batches

    async def create_batch(self, request: Request) -> Response:
        """Create a batch."""
        owner = self._authenticate(request)
        batch = self.organization.create_batch(await _body(request), owner)
        return self._reply(self._dialect.created_batch(batch))

    async def list_batches(self, request: Request) -> Response:
        """List batches, newest first."""
        owner = self._authenticate(request)
        dialect = self._dialect
        if not dialect.lists:
            raise ApiError(405, "Method Not Allowed")
        limit = _limit(request, default=20, maximum=100)
        if dialect.together:
            return _json(self.organization.list_batches(owner, None, 10_000)[0])
        batches, has_more = self.organization.list_batches(owner, request.query_params.get("after"), limit)
        return self._reply(_page([dialect.listed_batch(batch) for batch in batches], has_more))

    async def retrieve_batch(self, request: Request) -> Response:
        """Return a batch object."""
        return self._reply(self.organization.get_batch(request.path_params["id"], self._authenticate(request)))

    async def cancel_batch(self, request: Request) -> Response:
        """Cancel a batch."""
        return self._reply(self.organization.cancel_batch(request.path_params["id"], self._authenticate(request)))

    # Synchronous calls

    async def answer(self, request: Request) -> Response:
        """Answer a synchronous call, with the same answer as in a batch."""
        self._authenticate(request)
        answer = await self.organization.answer(request.url.path, await _body(request))
        body = self._dialect.sync_body(answer.status, answer.body)
        return _json(body, answer.status, answer.headers)

    # /sandbox

    async def settings(self, request: Request) -> Response:
        """Return the settings, without the keys."""
        return _json(self.organization.state.settings.model_dump(mode="json", exclude={"api_keys", "required_headers"}))

    async def configure(self, request: Request) -> Response:
        """Change some settings."""
        changes = await _body(request)
        current = self.organization.state.settings.model_dump()
        settings = _validated(lambda: Settings.model_validate(current | changes))
        self.organization.configure(settings)
        return _json({})

    async def reset(self, request: Request) -> Response:
        """Replace the organization by an empty one; the body holds the new settings."""
        body = await _body(request)
        settings = _validated(lambda: Settings.model_validate(body))
        old, self.organization = self.organization, Organization(settings, self._clock)
        await run_in_threadpool(old.close)
        return _json({})

    async def add_fault(self, request: Request) -> Response:
        """Add a fault to the schedule."""
        body = await _body(request)
        self.organization.state.schedule.add(_validated(lambda: _FAULT.validate_python(body)))
        return _json({})

    async def clear_faults(self, request: Request) -> Response:
        """Remove every fault."""
        self.organization.state.schedule.clear()
        return _json({})

    async def settle(self, request: Request) -> Response:
        """Wait until the threads have finished all work, whatever the clock of the test says."""
        await asyncio.gather(*(asyncio.wrap_future(work) for work in self.organization.worker.pending_work()))
        return _json({})

    async def send_webhook(self, request: Request) -> Response:
        """Send a signed webhook about a batch; the body holds `url`, `secret`, `type` and `batch_id`."""
        body = await _body(request)
        send = partial(send_webhook, body["url"], body["secret"], body["type"], body["batch_id"])
        return _json({"status": await run_in_threadpool(send)})

    async def calls(self, request: Request) -> Response:
        """List the calls of the API so far."""
        return _json([asdict(call) for call in self.organization.calls])

    async def books(self, request: Request) -> Response:
        """Return the fields of `Books`."""
        return _json(await run_in_threadpool(self.organization.books))


def _expires_after(form: FormData) -> dict[str, Any] | None:
    """Return the `expires_after` object of an upload, or `None`; the form fields are named `expires_after[…]`."""
    fields = {match[1]: value for key, value in form.items() if (match := re.fullmatch(r"expires_after\[(\w+)\]", key))}
    return fields if fields else None


def _extra_fields(form: FormData) -> dict[str, str]:
    """Return the fields of an upload that OpenAI's API does not have."""
    return {
        name: value
        for name, value in form.items()
        if isinstance(value, str) and name != "purpose" and not name.startswith("expires_after[")
    }


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _page(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": has_more}


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    return body


def _limit(request: Request, default: int, maximum: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= maximum:
        message = f"Invalid 'limit': expected an integer between 1 and {maximum}, but got '{text}' instead."
        raise ApiError(400, message, param="limit", code="invalid_value")
    return int(text)


def _validated(parse: Callable[[], Any]) -> Any:
    """Return the result of `parse`; answer 422 if pydantic refuses the input."""
    try:
        return parse()
    except ValidationError as error:
        raise ApiError(422, str(error)) from error


async def _reply_api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return _json(error.body(), error.status, error.headers)


async def _reply_to_disconnected(request: Request, error: Exception) -> Response:
    # No client reads this reply, but without a reply the server would log an error.
    return Response(status_code=400)
