"""Pages of a scope's requests, found and searched without reading all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.ledger.answer_parts import read_lines
from distilabel_openai_batch.ledger.packs import PACK_SIZE, Pack
from distilabel_openai_batch.ledger.reader import LedgerReader

# Requests whose answers one query searches: far below a second.
_SEARCH_CHUNK = 10_000

_STATES = {
    "all": "1",
    "answered": "requests.state = 'answered' AND rejections.request IS NULL AND replaced_requests.request IS NULL",
    "failed": "(requests.state = 'failed' OR rejections.request IS NOT NULL) AND replaced_requests.request IS NULL",
    "pending": "requests.state = 'asked'",
    "cut": "cut_answers.request IS NOT NULL AND replaced_requests.request IS NULL",
    "replaced": "replaced_requests.request IS NOT NULL AND requests.state != 'asked'",
}

STATES = tuple(_STATES)
"""States by which requests can be selected."""

_TABLES = """
    FROM requests JOIN jobs ON jobs.id = job LEFT JOIN answers ON answers.request = requests.id
        LEFT JOIN rejections ON rejections.request = requests.id
        LEFT JOIN cut_answers ON cut_answers.request = requests.id
        LEFT JOIN replaced_requests ON replaced_requests.request = requests.id
        LEFT JOIN prompt_starts ON prompt_starts.request = requests.id
"""

# The sign before `requests.scope` keeps SQLite from the index by scope, whose rows it would have to sort by id.
_FIND = "SELECT requests.id" + _TABLES + " WHERE +requests.scope = :scope AND requests.id > :after AND "

_MATCHES = """
    requests.custom_id LIKE :pattern ESCAPE '\\' OR coalesce(rejections.error, requests.error) LIKE :pattern ESCAPE '\\'
    OR coalesce(rejections.code, requests.code) LIKE :pattern ESCAPE '\\' OR text LIKE :pattern ESCAPE '\\'
    OR CAST(line AS TEXT) LIKE :in_json ESCAPE '\\' OR CAST(line AS TEXT) LIKE :in_ascii_json ESCAPE '\\'
"""

_SEARCH = (
    "SELECT requests.id, custom_id, "
    + _MATCHES
    + _TABLES
    + " WHERE +requests.scope = :scope AND requests.id > :after AND requests.id <= :until AND "
)

_READ = (
    """
    SELECT requests.id, custom_id, jobs.id, batch_id, jobs.model, requests.state, attempts, tokens_in, tokens_out,
        requests.tokens_reasoning, status_code, coalesce(rejections.code, requests.code),
        coalesce(rejections.error, requests.error), rejections.request IS NOT NULL, cut_answers.request IS NOT NULL,
        replaced_requests.request IS NOT NULL, line, text
    """  # noqa: S608  # parts of this module alone
    + _TABLES
    + " WHERE requests.id IN (SELECT value FROM json_each(:ids)) ORDER BY requests.id"
)

_LAST_ID = "SELECT coalesce(max(id), 0) FROM requests"

_NTH = "SELECT id FROM requests WHERE +scope = ? ORDER BY id LIMIT 1 OFFSET ?"

# Each request is counted once: the numbers are sums of the counts between two ids.
_NUMBERS = """
    SELECT sum((SELECT count(*) FROM requests WHERE scope = :scope AND id > previous AND id <= value))
        OVER (ORDER BY value)
    FROM (SELECT value, lag(value, 1, 0) OVER (ORDER BY value) AS previous FROM json_each(:ids))
"""

_COUNT_BY_PACK = f"SELECT id - id % {PACK_SIZE}, count(*) FROM requests WHERE +scope = ? GROUP BY 1"  # noqa: S608

_IN_PACK = f"SELECT id FROM requests WHERE +scope = ? AND id BETWEEN ? AND ? + {PACK_SIZE - 1}"  # noqa: S608

_JOBS = "SELECT id, batch_id, model FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

# States of packs: whether their requests are answered, or any. All packed requests are answered or pending.
_PACK_STATES: dict[str, bool | None] = {"all": None, "answered": True, "pending": False}

_INPUT_FILE = "SELECT base_url, input_file_id FROM jobs JOIN scopes ON scopes.id = jobs.scope WHERE jobs.id = ?"

FindPrompts = Callable[[Sequence[str], str], set[str]]
"""Function that returns the `custom_id`s, among some, whose known prompts contain a text."""


@dataclass(frozen=True, slots=True)
class RowEntry:
    """A request with its outcome.

    Attributes:
        id: the id of the request's row in the ledger.
        custom_id: the request's id in the input file.
        job: the id of the last job that held the request.
        batch_id: the job's batch; `None` for a job without a batch.
        model: the model that the request names.
        state: `answered`, `failed` or `pending`.
        attempts: the number of jobs that have held the request.
        tokens_in, tokens_out, tokens_reasoning: billed tokens; `None` without an answer.
        status_code: the HTTP status code; `None` if the server returned none.
        code, message: the API's error code and message; `None` for an answer that is usable.
        is_cut: whether the limit of tokens cut the answer.
        answer: the answer, usable or not; `None` without an answer.
        prompt_start: the start of the prompt of a failed request; empty if the ledger does not have the start.
        is_replaced: whether the row got the outcome of a retry, which is another request.
    """

    id: int
    custom_id: str
    job: int
    batch_id: str | None
    model: str
    state: str
    attempts: int
    tokens_in: int | None
    tokens_out: int | None
    tokens_reasoning: int | None
    status_code: int | None
    code: str | None
    message: str | None
    is_cut: bool
    answer: Answer | None
    prompt_start: str
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class RowPage:
    """A page of requests.

    Attributes:
        rows: the requests, in the order in which they were planned.
        next_id: the id after which the search goes on; `None` at the end.
    """

    rows: Sequence[RowEntry]
    next_id: int | None


class RowReader(LedgerReader):
    """A ledger, for reading its requests page by page. Each method raises `LedgerError` as those of `LedgerReader`."""

    def page(
        self,
        scope_id: int,
        after: int = 0,
        limit: int = 50,
        state: str = "all",
        text: str = "",
        find_prompts: FindPrompts | None = None,
        seconds: float = 1.0,
    ) -> RowPage:
        """Return the next requests of a scope.

        Args:
            scope_id: the id of the scope's row.
            after: the id behind which the page begins; 0 for the first page.
            limit: the number of requests, at most.
            state: one of `STATES`.
            text: a text that the answer, the reason, the `custom_id` or the prompt contains; empty for no search.
            find_prompts: finds the text in known prompts; `None` for no known prompts.
            seconds: the time after which a search returns the requests found so far.
        """
        [(last_id,)] = self._query(_LAST_ID) or [(0,)]
        last_id = max(last_id, self.packs.last_id())
        if text:
            ids, reached = self._search(scope_id, after, last_id, limit, state, text, find_prompts, seconds)
        else:
            sql = f"{_FIND}{_STATES[state]} ORDER BY requests.id LIMIT :limit"
            rows = self._query(sql, {"scope": scope_id, "after": after, "limit": limit + 1})
            ids, reached = [id_ for (id_,) in rows], last_id
            if state in _PACK_STATES:
                ids += self.packs.find_ids(scope_id, after, limit + 1, answered=_PACK_STATES[state])
                ids = sorted(ids)[: limit + 1]
        shown = ids[:limit]
        next_id = shown[-1] if len(ids) > limit else reached
        return RowPage(self.read_rows(shown), next_id if next_id < last_id else None)

    def _search(
        self,
        scope_id: int,
        after: int,
        last_id: int,
        limit: int,
        state: str,
        text: str,
        find_prompts: FindPrompts | None,
        seconds: float,
    ) -> tuple[list[int], int]:
        """Return ids of requests that contain a text, more than `limit` if there are, and the last id searched."""
        parameters: dict[str, int | str] = {
            "scope": scope_id,
            "pattern": _pattern(text),
            "in_json": _pattern(json.dumps(text, ensure_ascii=False)[1:-1]),
            "in_ascii_json": _pattern(json.dumps(text)[1:-1]),
        }
        deadline, reached = time.monotonic() + seconds, after
        ids: list[int] = []
        while len(ids) <= limit and reached < last_id and (reached == after or time.monotonic() < deadline):
            until = min(last_id, reached + _SEARCH_CHUNK)
            span = {**parameters, "after": reached, "until": until}
            rows = self._query(f"{_SEARCH}{_STATES[state]} ORDER BY requests.id", span)
            if state in _PACK_STATES:
                rows += self.packs.search(scope_id, reached, until, text, answered=_PACK_STATES[state])
            in_prompts = find_prompts([custom_id for _, custom_id, _ in rows], text) if find_prompts else set()
            ids += sorted(id_ for id_, custom_id, matches in rows if matches or custom_id in in_prompts)
            reached = until
        return ids, reached

    def read_rows(self, ids: Iterable[int]) -> list[RowEntry]:
        """Return requests by their ids, in the order of the ids."""
        wanted = list(ids)
        rows = self._query(_READ, {"ids": orjson.dumps(wanted).decode()})
        entries = [_row_entry(*row) for row in rows] + self._read_packed(wanted)
        return sorted(entries, key=lambda entry: entry.id)

    def _read_packed(self, ids: Sequence[int]) -> list[RowEntry]:
        members = self.packs.find(ids)
        lines = read_lines(self._query, list(members))
        job_ids = orjson.dumps(list({pack.job for pack, _ in members.values()})).decode()
        jobs = {row[0]: row for row in self._query(_JOBS, (job_ids,))}
        return [
            _packed_entry(request_id, pack, index, jobs[pack.job], lines.get(request_id))
            for request_id, (pack, index) in members.items()
        ]

    def find_row(self, scope_id: int, number: int) -> int | None:
        """Return the id of a scope's request by its number, from 1 in the order of the plan; `None` for no request."""
        counts = self.packs.count_by_pack(scope_id)
        if not counts:
            rows = self._query(_NTH, (scope_id, number - 1))
            return rows[0][0] if rows else None
        counts.update(dict(self._query(_COUNT_BY_PACK, (scope_id,))))
        for pack_id in sorted(counts):
            if number <= counts[pack_id]:
                ids = [id_ for (id_,) in self._query(_IN_PACK, (scope_id, pack_id, pack_id))]
                ids += self.packs.find_ids(scope_id, pack_id - 1, PACK_SIZE)
                return int(sorted(ids)[number - 1])
            number -= counts[pack_id]
        return None

    def number_rows(self, scope_id: int, rows: Sequence[RowEntry]) -> list[int]:
        """Return the numbers of a page's rows within their scope, from 1 in the order of the plan.

        Args:
            scope_id: the id of the scope's row.
            rows: rows of the scope in the order of their ids.
        """
        ids = orjson.dumps([row.id for row in rows]).decode()
        in_rows = (number for (number,) in self._query(_NUMBERS, {"scope": scope_id, "ids": ids}))
        in_packs = self.packs.count_until(scope_id, [row.id for row in rows])
        return list(map(sum, zip(in_rows, in_packs, strict=True)))

    def find_input_file(self, row: RowEntry) -> tuple[str, str | None]:
        """Return the address of a row's server, and the server's id of the input file of the row's job, if any."""
        [(base_url, file_id)] = self._query(_INPUT_FILE, (row.job,))
        return base_url, file_id

    def change_mark(self) -> str:
        """Return a text that differs after each change of the ledger."""
        marks = []
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            facts = path.stat() if path.exists() else None
            marks.append(f"{facts.st_mtime_ns}-{facts.st_size}" if facts else "")
        return " ".join(marks)


def _pattern(text: str) -> str:
    """Return the pattern of `LIKE` for a text anywhere in a value."""
    for character in "\\%_":
        text = text.replace(character, f"\\{character}")
    return f"%{text}%"


def _packed_entry(request_id: int, pack: Pack, index: int, job: Sequence[Any], line: bytes | None) -> RowEntry:
    _, batch_id, model = job
    tokens = pack.tokens(index)
    tokens_in, tokens_out, tokens_reasoning = (tokens[0], tokens[1], tokens[4]) if pack.is_answered else (None,) * 3
    return RowEntry(
        id=request_id,
        custom_id=pack.custom_id(index),
        job=pack.job,
        batch_id=batch_id,
        model=model,
        state="answered" if pack.is_answered else "pending",
        attempts=1,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_reasoning=tokens_reasoning,
        status_code=200 if pack.is_answered else None,
        code=None,
        message=None,
        is_cut=False,
        answer=Answer(line, tokens[:2]) if line else None,
        prompt_start="",
    )


def _row_entry(*columns: Any) -> RowEntry:
    id_, custom_id, job, batch_id, model, state, attempts, tokens_in, tokens_out, tokens_reasoning, *outcome = columns
    status, code, message, is_rejected, is_cut, is_replaced, line, start = outcome
    has_failed = state == "failed" or is_rejected
    return RowEntry(
        id=id_,
        custom_id=custom_id,
        job=job,
        batch_id=batch_id,
        model=model,
        state="failed" if has_failed else "pending" if state == "asked" else "answered",
        attempts=attempts,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_reasoning=tokens_reasoning,
        status_code=status,
        code=code if has_failed else None,
        message=(message or "no message") if has_failed else None,
        is_cut=bool(is_cut),
        answer=Answer(line, (tokens_in or 0, tokens_out or 0)) if line else None,
        prompt_start=start or "",
        is_replaced=bool(is_replaced) and state != "asked",
    )
