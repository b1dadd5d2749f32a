"""Live page about a ledger: the sections of the report, updated by themselves, and the rows of each scope.

A token in the address protects the page: a web page of another site knows neither the token nor, behind the host name
that the page checks, a way to read replies. The page loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import ScopeEntry
from distilabel_openai_batch.ledger.row_pages import STATES, RowEntry, RowReader
from distilabel_openai_batch.report.charts import WIDTHS
from distilabel_openai_batch.report.local_time import local, zone_name
from distilabel_openai_batch.report.page import page_values, read_report, render_template
from distilabel_openai_batch.report.row_texts import answer_text, finish_reasons, prompt_text
from distilabel_openai_batch.text import printable

_ROWS_PER_PAGE = 50
_EXCERPT_CHARACTERS = 240

# A page shows open jobs as going on: without a change of the ledger the sections are drawn again after this time.
_REDRAW_SECONDS = 15.0

# The sections are read again at the earliest when so many times the duration of the last reading has passed.
_REST_FACTOR = 4

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Prompts(Protocol):
    """Store of the requests as they were submitted."""

    def lines(self, custom_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the known lines of requests by `custom_id`."""

    def find(self, custom_ids: Sequence[str], text: str) -> set[str]:
        """Return the requests, among some, whose known lines contain a text."""

    async def load(self, base_url: str, file_id: str | None) -> None:
        """Make the lines of an input file known.

        Args:
            base_url: the address of the file's server.
            file_id: the server's id of the file; `None` for a job without an input file.

        Raises:
            OpenAIBatchError: the lines cannot be had, with the reason.
        """


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Sections of a page, and the state of the ledger that they show."""

    mark: str
    html: str
    scopes: Sequence[ScopeEntry]
    drawn_at: float
    seconds: float
    has_open_jobs: bool


class LivePage:
    """The page, and the data that its script requests.

    Args:
        reader: the ledger.
        prompts: the requests as they were submitted.
        select: returns the scopes that the page shows, of all scopes of the ledger.
    """

    def __init__(
        self,
        reader: RowReader,
        prompts: Prompts,
        select: Callable[[Sequence[ScopeEntry]], Sequence[ScopeEntry]] = list,
    ) -> None:
        self._reader = reader
        self._prompts = prompts
        self._select = select
        self._drawings: dict[tuple[int, int], _Drawing] = {}
        self._limiter = anyio.CapacityLimiter(1)

    async def show(self, request: Request) -> Response:
        """Return the page without its data."""
        return HTMLResponse(render_template("ui.html", {"rows_per_page": _ROWS_PER_PAGE, "states": STATES}))

    async def script(self, request: Request) -> Response:
        """Return the page's script."""
        text = files(__package__).joinpath("ui.js").read_text(encoding="utf-8")
        return Response(text, media_type="text/javascript")

    async def sections(self, request: Request) -> Response:
        """Return the sections about a scope and the list of scopes, if they differ from those of the page."""
        scope_id, width = _integer(request, "scope"), _integer(request, "width")
        if width not in WIDTHS:
            raise HTTPException(400, f"no chart is {width} pixels wide")
        drawing = await anyio.to_thread.run_sync(self._draw, scope_id, width, limiter=self._limiter)
        seen = request.query_params.get("seen")
        if seen == f"{drawing.drawn_at}":
            return Response(status_code=204)
        scopes = [
            {
                "id": entry.id,
                "label": printable(entry.name.label),
                "requests": entry.answered + entry.failed + entry.pending + entry.replaced,
            }
            for entry in drawing.scopes
        ]
        moment = local(drawing.drawn_at)
        updated = f"{moment:%H:%M:%S} {zone_name(drawing.drawn_at)}"
        return JSONResponse({"seen": f"{drawing.drawn_at}", "html": drawing.html, "scopes": scopes, "updated": updated})

    def _draw(self, scope_id: int, width: int) -> _Drawing:
        """Return the sections about a scope, 0 for all scopes; read the ledger only if it has changed."""
        now, last = time.time(), self._drawings.get((scope_id, width))
        if last and now - last.drawn_at < max(1.0, _REST_FACTOR * last.seconds):
            return last
        mark = self._reader.change_mark()
        is_old = last and last.has_open_jobs and now - last.drawn_at >= _REDRAW_SECONDS
        if last and last.mark == mark and not is_old:
            return last
        scopes = self._select(self._reader.scopes())
        shown = [entry for entry in scopes if scope_id in (0, entry.id)]
        title = shown[0].name.label if len(shown) == 1 else "All scopes"
        data = read_report(self._reader, shown, title, now) if shown else None
        html = render_template("sections.html", page_values(data, [width])) if data else ""
        has_open_jobs = any(history.job.is_open for history in data.histories) if data else False
        drawing = _Drawing(mark, html, scopes, now, time.time() - now, has_open_jobs)
        self._drawings[scope_id, width] = drawing
        return drawing

    async def rows(self, request: Request) -> Response:
        """Return a page of a scope's rows."""
        query = request.query_params
        scope_id, after, number = (_integer(request, name) for name in ("scope", "after", "number"))
        state = query.get("state", "all")
        if state not in STATES:
            raise HTTPException(400, f"no state {state}")

        def read() -> dict[str, Any]:
            start = after
            if number > 1:
                row_id = self._reader.find_row(scope_id, number)
                start = row_id - 1 if row_id else after
            page = self._reader.page(
                scope_id, start, _ROWS_PER_PAGE, state, query.get("text", "").strip(), self._prompts.find
            )
            lines = self._prompts.lines([row.custom_id for row in page.rows])
            numbers = self._reader.number_rows(scope_id, page.rows)
            rows = [
                _row_values(row, lines.get(row.custom_id)) | {"number": number}
                for row, number in zip(page.rows, numbers, strict=True)
            ]
            return {"rows": rows, "next": page.next_id, "start": start}

        return JSONResponse(await anyio.to_thread.run_sync(read))

    async def row(self, request: Request) -> Response:
        """Return a row with its whole texts."""
        row = await self._find_row(request)
        line = self._prompts.lines([row.custom_id]).get(row.custom_id)
        return JSONResponse(_row_values(row, line, is_whole=True))

    async def request_line(self, request: Request) -> Response:
        """Return a row's request as a line of the input file, and download the file if it is not known."""
        row = await self._find_row(request)
        line = self._prompts.lines([row.custom_id]).get(row.custom_id)
        if line is None:
            await self._prompts.load(*await anyio.to_thread.run_sync(self._reader.find_input_file, row))
            line = self._prompts.lines([row.custom_id]).get(row.custom_id)
        if line is None:
            raise OpenAIBatchError("The input file of the job does not contain this request.")
        return Response(line, media_type="application/json")

    async def _find_row(self, request: Request) -> RowEntry:
        rows = await anyio.to_thread.run_sync(self._reader.read_rows, [_integer(request, "id")])
        if not rows:
            raise HTTPException(404, "no such row")
        return rows[0]


def create_app(page: LivePage, token: str, hosts: Sequence[str] = ("127.0.0.1", "localhost")) -> Starlette:
    """Return the application that serves a page below `/<token>/`.

    Args:
        page: the page.
        token: the secret part of the address.
        hosts: host names by which the page may be requested: a foreign name that leads to this machine is refused.
    """
    views = {
        "/": page.show,
        "/ui.js": page.script,
        "/sections": page.sections,
        "/rows": page.rows,
        "/row": page.row,
        "/request": page.request_line,
    }
    return Starlette(
        routes=[Route(f"/{{token}}{path}", _protected(view, token), methods=["GET"]) for path, view in views.items()],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def _protected(view: Callable[[Request], Awaitable[Response]], token: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a view that needs the token, reports errors as JSON, and sets the headers of each reply."""

    async def protected(request: Request) -> Response:
        if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
            raise HTTPException(404)
        try:
            response = await view(request)
        except OpenAIBatchError as error:
            response = JSONResponse({"error": printable(str(error))}, status_code=502)
        response.headers.update(_HEADERS)
        return response

    return protected


def _integer(request: Request, name: str) -> int:
    try:
        return int(request.query_params.get(name) or 0)
    except ValueError:
        raise HTTPException(400, f"{name} is no number") from None


def _row_values(row: RowEntry, line: bytes | None, is_whole: bool = False) -> dict[str, Any]:
    """Return the facts about a row as JSON holds them, with excerpts or with the whole texts."""
    answer = answer_text(row.answer) if row.answer else ""
    prompt = prompt_text(line) if line else None if is_whole else row.prompt_start or None
    shorten = printable if is_whole else _excerpt
    values: dict[str, Any] = {
        "id": row.id,
        "state": _state(row),
        "prompt": None if prompt is None else shorten(prompt),
        "answer": shorten(answer),
        "reason": None if row.message is None else shorten(row.message),
        "code": printable(" ".join(str(part) for part in (row.status_code, row.code) if part)) if row.message else "",
    }
    if is_whole:
        values["facts"] = _facts(row)
        values["response"] = json.dumps(row.answer.received_body) if row.answer else ""
    return values


def _state(row: RowEntry) -> str:
    """Return the state that the page shows, one of `STATES`."""
    if row.is_replaced:
        return "replaced"
    return "cut" if row.is_cut and row.state == "answered" else row.state


def _facts(row: RowEntry) -> list[tuple[str, str]]:
    """Return the statistics of a row, as pairs of a name and a text."""
    facts = [
        ("custom_id", row.custom_id),
        ("batch", row.batch_id or "no batch"),
        ("model", (str(row.answer.body.get("model") or "") if row.answer else "") or row.model),
        ("jobs so far", f"{row.attempts:,}"),
        ("tokens in", "" if row.tokens_in is None else f"{row.tokens_in:,}"),
        ("tokens out", "" if row.tokens_out is None else f"{row.tokens_out:,}"),
        ("of them for reasoning", f"{row.tokens_reasoning:,}" if row.tokens_reasoning else ""),
        ("finish reason", finish_reasons(row.answer) if row.answer else ""),
    ]
    return [(name, printable(text)) for name, text in facts if text]


def _excerpt(text: str) -> str:
    return printable(text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}…")
