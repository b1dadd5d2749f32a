"""The ASGI application: the routes of the API under `/v1`, and those that steer the sandbox under `/sandbox`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
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

from .answers import Answer
from .errors import ApiError
from .faults import AnyFault
from .files import StoredFile
from .middleware import Exchange
from .organization import Organization
from .settings import Settings

_FAULT: TypeAdapter[AnyFault] = TypeAdapter(AnyFault)
_Handler = Callable[[Request], Awaitable[Response]]


def create_app(settings: Settings | None = None, clock: Callable[[], float] = time.time) -> Starlette:
    """Returns a sandbox as an ASGI application.

    Args:
        settings: how it behaves; the defaults of `Settings` if not given.
        clock: tells the time, in seconds since the epoch.
    """
    api = Api(Settings() if settings is None else settings, clock)
    return Starlette(
        routes=api.routes(),
        middleware=[Middleware(Exchange, organization=lambda: api.organization)],
        exception_handlers={ApiError: _refuse, HTTPException: _refuse_http, ClientDisconnect: _hung_up},
        lifespan=api.lifespan,
    )


class Api:
    """The handlers. They translate between HTTP and the organization, and decide nothing.

    Attributes:
        organization: the account served; another one after a reset.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.organization = Organization(settings, clock)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Closes the organization when the server stops."""
        yield
        self.organization.close()

    def routes(self) -> list[Route]:
        """Returns every route."""
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
            ("POST", "/v1/embeddings", self.answer),
            ("GET", "/sandbox/settings", self.settings),
            ("PATCH", "/sandbox/settings", self.configure),
            ("POST", "/sandbox/reset", self.reset),
            ("POST", "/sandbox/faults", self.add_fault),
            ("DELETE", "/sandbox/faults", self.clear_faults),
            ("POST", "/sandbox/settle", self.settle),
            ("GET", "/sandbox/calls", self.calls),
            ("GET", "/sandbox/books", self.books),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in routes]

    def _owner(self, request: Request) -> str:
        return self.organization.owner(request.headers.get("authorization"))

    # /v1/files

    async def create_file(self, request: Request) -> Response:
        """Stores an upload. The form parser spools it to disk as it comes in."""
        owner = self._owner(request)
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
                purpose if isinstance(purpose, str) else None,
                _expiry(form),
                owner,
            )
        return _json(self._file(file))

    def _file(self, file: StoredFile) -> dict[str, Any]:
        return self.organization.settings.dialect.file(file.as_json(), self.organization.clock() - file.created_at)

    async def list_files(self, request: Request) -> Response:
        """Lists files, newest first."""
        files = self.organization.files(self._owner(request), request.query_params.get("purpose"))
        if request.query_params.get("order") == "asc":
            files.reverse()
        after = request.query_params.get("after")
        if after is not None:
            places = [place for place, file in enumerate(files) if file.id == after]
            files = files[places[0] + 1 :] if places else []
        limit = _limit(request, default=10_000, most=10_000)
        return _page([self._file(file) for file in files[:limit]], len(files) > limit)

    async def retrieve_file(self, request: Request) -> Response:
        """Shows a file."""
        return _json(self._file(self.organization.file(request.path_params["id"], self._owner(request))))

    async def file_content(self, request: Request) -> Response:
        """Sends the bytes of a file, or the range asked for."""
        file = self.organization.file(request.path_params["id"], self._owner(request))
        return FileResponse(file.path, media_type="application/octet-stream", filename=file.filename)

    async def delete_file(self, request: Request) -> Response:
        """Deletes a file."""
        file_id = request.path_params["id"]
        self.organization.delete_file(file_id, self._owner(request))
        return _json({"id": file_id, "object": "file", "deleted": True})

    # /v1/batches

    async def create_batch(self, request: Request) -> Response:
        """Creates a batch."""
        owner = self._owner(request)
        return _json(self.organization.create_batch(await _body(request), owner))

    async def list_batches(self, request: Request) -> Response:
        """Lists batches, newest first."""
        owner = self._owner(request)
        if not self.organization.settings.dialect.lists:
            raise ApiError(405, "Method Not Allowed")
        batches, more = self.organization.batches(owner, request.query_params.get("after"), _limit(request, 20, 100))
        return _page(batches, more)

    async def retrieve_batch(self, request: Request) -> Response:
        """Shows a batch."""
        return _json(self.organization.batch(request.path_params["id"], self._owner(request)))

    async def cancel_batch(self, request: Request) -> Response:
        """Cancels a batch."""
        return _json(self.organization.cancel_batch(request.path_params["id"], self._owner(request)))

    # The synchronous calls

    async def answer(self, request: Request) -> Response:
        """Answers at once what a line of a batch would be answered with."""
        self._owner(request)
        reply: Answer = self.organization.answer(request.url.path, await _body(request))
        return _json(reply.body, reply.status, reply.headers)

    # /sandbox

    async def settings(self, request: Request) -> Response:
        """Shows the settings, without the keys."""
        return _json(self.organization.settings.model_dump(mode="json", exclude={"api_keys"}))

    async def configure(self, request: Request) -> Response:
        """Changes some settings while running."""
        changes = await _body(request)
        settings = _validated(lambda: Settings.model_validate(self.organization.settings.model_dump() | changes))
        self.organization.configure(settings)
        return _json({})

    async def reset(self, request: Request) -> Response:
        """Forgets everything; the body holds the new settings."""
        body = await _body(request)
        settings = _validated(lambda: Settings.model_validate(body))
        old, self.organization = self.organization, Organization(settings, self._clock)
        await run_in_threadpool(old.close)
        return _json({})

    async def add_fault(self, request: Request) -> Response:
        """Appends a fault to the script."""
        body = await _body(request)
        self.organization.script.add(_validated(lambda: _FAULT.validate_python(body)))
        return _json({})

    async def clear_faults(self, request: Request) -> Response:
        """Forgets every fault."""
        self.organization.script.clear()
        return _json({})

    async def settle(self, request: Request) -> Response:
        """Returns once the threads have nothing left to do: for tests that hand in their own clock."""
        await asyncio.gather(*(asyncio.wrap_future(work) for work in self.organization.pending()))
        return _json({})

    async def calls(self, request: Request) -> Response:
        """Lists the calls of the API so far."""
        return _json([asdict(call) for call in self.organization.calls])

    async def books(self, request: Request) -> Response:
        """Shows the books."""
        return _json(await run_in_threadpool(self.organization.books))


def _expiry(form: FormData) -> dict[str, Any] | None:
    """Returns the `expires_after` of an upload, which a form spells `expires_after[anchor]`."""
    found = {match[1]: value for key, value in form.items() if (match := re.fullmatch(r"expires_after\[(\w+)\]", key))}
    return found if found else None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _page(data: list[dict[str, Any]], more: bool) -> Response:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return _json({"object": "list", "data": data, **ends, "has_more": more})


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request.")
    return body


def _limit(request: Request, default: int, most: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        message = f"Invalid 'limit': expected an integer between 1 and {most}, but got '{text}' instead."
        raise ApiError(400, message, param="limit", code="invalid_value")
    return int(text)


def _validated(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValidationError as error:
        raise ApiError(422, str(error)) from error


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return _json(error.body(), error.status, error.headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        message = f"Invalid URL ({request.method} {request.url.path})"
    else:
        message = str(error.detail) if isinstance(error, HTTPException) else "The server had an error."
    return _json(ApiError(status, message).body(), status)


async def _hung_up(request: Request, error: Exception) -> Response:
    # Nobody will read it; without it the server would report an error of its own.
    return Response(status_code=400)
