"""Packs of the ledger, for sessions: insertion, search, record of answers, and the way of requests out of packs."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard, cast

import orjson

from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.api.requests import DIGEST_BYTES
from distilabel_openai_batch.api.usage import NO_DETAILS
from distilabel_openai_batch.ledger.answer_parts import delete_lines, insert_lines, read_lines
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.pack_index import PackIndex
from distilabel_openai_batch.ledger.pack_search import PackHits, PackSearch, search_digests
from distilabel_openai_batch.ledger.packs import (
    MAX_TOKENS,
    MIN_PACK,
    PACK_SIZE,
    SELECT_PACKS,
    SELECT_PACKS_OF_JOB,
    Pack,
    PackedNames,
    find_member,
    first_id,
    pack_numbers,
    parse_digest,
)

# Ids of requests in rows and in packs never meet.
_NEXT_REQUEST = f"""
    SELECT 1 + max(
        (SELECT coalesce(max(id), 0) FROM requests),
        (SELECT coalesce(max(seq) + {PACK_SIZE - 1}, 0) FROM sqlite_sequence WHERE name = 'packs')
    )
"""  # noqa: S608  # a constant of this package

_INSERT = "INSERT INTO packs (id, scope, job, size, digests, occurrences) VALUES (?, ?, ?, ?, ?, ?)"

_DELETE = "DELETE FROM packs WHERE id = ?"

_SELECT_OTHERS = "SELECT id, size FROM packs WHERE scope = ? AND job NOT IN (SELECT value FROM json_each(?))"

_NO_TOKENS = (None,) * 5

_INSERT_ROW = """
    INSERT INTO requests (
        id, scope, custom_id, job, state, attempts, handed_over, used_at, status_code, tokens_in, tokens_out,
        tokens_cached, tokens_written, tokens_reasoning
    )
    SELECT ?, scope, ?, job, iif(answered, 'answered', 'asked'), 1, handed_over, used_at, iif(answered, 200, NULL),
        ?, ?, ?, ?, ?
    FROM packs WHERE id = ?
"""

_INSERT_LINE = "INSERT INTO answers (request, line) VALUES (?, ?)"

_MARK_DELIVERED = """
    UPDATE packs SET handed_over = 1, used_at = ? WHERE id IN (SELECT value FROM json_each(?)) AND answered
"""

_LIST_DROPPED = "SELECT id FROM jobs WHERE scope = ? AND state = 'dropped'"

# Delivered `custom_id`s per search: the memory of their texts, digests and keys.
_CHUNK = 10_000


def next_request_id(database: sqlite3.Connection) -> int:
    """Return an id that no request has, in a row or in a pack, nor has any higher id."""
    [request_id] = database.execute(_NEXT_REQUEST).fetchone()
    return int(request_id)


class PackTable:
    """The table `packs`, with an index of each scope in use. All methods need a lock on the connection.

    Args:
        connection: the ledger file.
        is_compressed: whether to compress the result lines of new answers.
    """

    def __init__(self, connection: Connection, *, is_compressed: bool = False) -> None:
        self._connection = connection
        self._is_compressed = is_compressed
        self._indexes: dict[int, PackIndex] = {}
        self._rollbacks = connection.rollbacks

    def insert(
        self, database: sqlite3.Connection, scope_id: int, job_id: int, custom_ids: Sequence[str], names: PackedNames
    ) -> Sequence[str]:
        """Put pending requests into packs.

        Args:
            database: SQLite's connection, in a transaction.
            scope_id: the id of the scope's row.
            job_id: the job that holds the requests.
            custom_ids: requests that the scope does not have yet.
            names: the `custom_id`s among them that packs can have.

        Returns:
            The requests that need rows, since there are too few, or their `custom_id`s have another form.
        """
        pack_id = -(-next_request_id(database) // PACK_SIZE) * PACK_SIZE
        packed = 0
        for digests, occurrences in names.cut(PACK_SIZE):
            size = len(digests) // DIGEST_BYTES
            if size < MIN_PACK:
                break
            database.execute(_INSERT, (pack_id, scope_id, job_id, size, digests, pack_numbers(occurrences)))
            pack_id += PACK_SIZE
            packed += size
        if len(names) == len(custom_ids):
            return custom_ids[packed:]
        inserted = set(names.custom_ids[:packed])
        return [custom_id for custom_id in custom_ids if custom_id not in inserted]

    def search(self, database: sqlite3.Connection, scope_id: int, custom_ids: Sequence[str]) -> PackSearch:
        """Return a search for requests in packs, which lasts as long as the transaction."""
        return PackSearch(custom_ids, self._refreshed_index(database, scope_id), partial(self._load, database))

    def find_digests(
        self, database: sqlite3.Connection, scope_id: int, digests: Iterable[str]
    ) -> Iterator[tuple[str, Pack, int]]:
        """Yield the requests in packs that have given digests: the digest, the pack, and the index of the request."""
        return search_digests(digests, self._refreshed_index(database, scope_id), partial(self._load, database))

    def drop_index(self, scope_id: int) -> None:
        """Free the memory of a scope's index; the next search reads the packs again."""
        self._indexes.pop(scope_id, None)

    def last_delivered(self, database: sqlite3.Connection, scope_id: int, digest: str) -> int:
        """Return the highest occurrence number of a digest that a run has delivered; -1 if there is none."""
        index, wanted = self._refreshed_index(database, scope_id), parse_digest(digest)
        request_ids = index.find_digest(wanted) if wanted else []
        packs = self._load(database, set(map(first_id, request_ids)))
        members = filter(None, (find_member(packs, request_id) for request_id in request_ids))
        return max(
            (pack.occurrence(place) for pack, place in members if pack.handed_over and pack.digest(place) == wanted),
            default=-1,
        )

    def list_of_job(self, database: sqlite3.Connection, job_id: int) -> list[Pack]:
        """Return the packs of a job, in the order of the plan."""
        return [Pack.of_row(row) for row in database.execute(SELECT_PACKS_OF_JOB, (job_id,))]

    def list_dropped(self, database: sqlite3.Connection, scope_id: int) -> set[int]:
        """Return the ids of a scope's dropped jobs, whose pending requests are free."""
        return {job_id for (job_id,) in database.execute(_LIST_DROPPED, (scope_id,))}

    def record(self, database: sqlite3.Connection, outcomes: Mapping[int, Outcome]) -> set[int]:
        """Record the answers to the requests of packs. Requests with other outcomes leave their packs.

        Args:
            database: SQLite's connection, in a transaction.
            outcomes: outcomes by the ids of requests, in packs or in rows. A pack of which requests have no outcome is
                given up: all its requests leave.

        Returns:
            The ids of the requests whose answers the packs have now, or had before.
        """
        recorded: set[int] = set()
        for pack in self._load(database, {id_ - id_ % PACK_SIZE for id_ in outcomes}).values():
            request_ids = pack.request_ids
            if pack.is_answered:
                recorded.update(request_ids)
                continue
            found = list(map(outcomes.get, request_ids))
            if _are_plain(found):
                self._record(database, pack, found)
                recorded.update(request_ids)
                continue
            answers = {index: outcome for index, outcome in enumerate(found) if _is_plain(outcome)}
            if len(answers) < MIN_PACK or not outcomes.keys() >= {*request_ids}:
                answers = {}
            if len(answers) < len(pack):
                self._release(database, pack, sorted({*range(len(pack))} - answers.keys()))
            if answers:
                rest = pack.select(answers) if len(answers) < len(pack) else pack
                self._record(database, rest, list(answers.values()))
                recorded.update(rest.request_ids)
        return recorded

    def mark_delivered(
        self, database: sqlite3.Connection, scope_id: int, custom_ids: Sequence[str], began_at: float
    ) -> list[str]:
        """Mark answers in packs as delivered. If a run delivered a part of a pack, the smaller part leaves the pack.

        Args:
            database: SQLite's connection, in a transaction.
            scope_id: the id of the scope's row.
            custom_ids: the requests that the run delivered.
            began_at: the begin of the run, in seconds since the epoch.

        Returns:
            The requests that are in rows.
        """
        others: list[str] = []
        whole: set[int] = set()
        parts: defaultdict[int, set[int]] = defaultdict(set)
        for start in range(0, len(custom_ids), _CHUNK):
            search = self.search(database, scope_id, custom_ids[start : start + _CHUNK])
            for hits in search:
                indexes = hits.indexes if isinstance(hits.indexes, range) else {*hits.indexes}
                if len(indexes) == len(hits.pack):
                    whole.add(hits.pack.id)
                else:
                    parts[hits.pack.id].update(indexes)
            others += search.others()
        for pack in self._load_each(database, parts.keys() - whole):
            delivered = parts[pack.id]
            missing = {*range(len(pack))} - delivered
            if len(missing) <= len(delivered):
                whole.add(pack.id)
            else:
                others += map(pack.custom_id, delivered)
                missing = delivered
            if missing:
                self._release(database, pack, sorted(missing))
        database.execute(_MARK_DELIVERED, (began_at, _json(whole)))
        return others

    def release(self, database: sqlite3.Connection, search: Iterable[PackHits]) -> None:
        """Give requests rows of their own, in the state that they have in their packs.

        Args:
            database: SQLite's connection, in a transaction.
            search: the requests.
        """
        indexes: defaultdict[int, set[int]] = defaultdict(set)
        for hits in search:
            indexes[hits.pack.id].update(hits.indexes)
        self.release_members(database, indexes)

    def release_members(self, database: sqlite3.Connection, indexes: Mapping[int, Collection[int]]) -> None:
        """Give requests rows of their own, by their indexes in their packs, by the id of the pack."""
        for pack in self._load_each(database, indexes):
            self._release(database, pack, sorted(indexes[pack.id]))

    def release_pending(self, database: sqlite3.Connection, job_id: int) -> None:
        """Give the pending requests of a job rows of their own."""
        for pack in self.list_of_job(database, job_id):
            if not pack.is_answered:
                self._release(database, pack, range(len(pack)))

    def delete(self, database: sqlite3.Connection, scope_id: int, kept_jobs: Collection[int]) -> int:
        """Delete the packs of a scope, except the packs of some jobs; return the number of their requests."""
        rows = database.execute(_SELECT_OTHERS, (scope_id, _json(kept_jobs))).fetchall()
        for pack_id, _ in rows:
            self._delete(database, pack_id)
        return sum(size for _, size in rows)

    def _refreshed_index(self, database: sqlite3.Connection, scope_id: int) -> PackIndex:
        """Return the index of a scope with all packs that the file has now."""
        # A transaction that was rolled back may have shown its packs, whose ids belong to other packs later.
        if self._rollbacks != self._connection.rollbacks:
            self._rollbacks = self._connection.rollbacks
            self._indexes.clear()
        index = self._indexes.setdefault(scope_id, PackIndex(scope_id))
        index.refresh(database.execute)
        return index

    def _load(self, database: sqlite3.Connection, pack_ids: Collection[int]) -> dict[int, Pack]:
        if not pack_ids:
            return {}
        packs = map(Pack.of_row, database.execute(SELECT_PACKS, (_json(pack_ids),)))
        return {pack.id: pack for pack in packs}

    def _load_each(self, database: sqlite3.Connection, pack_ids: Iterable[int]) -> Iterator[Pack]:
        """Yield packs one by one, for a change of the pack."""
        for pack_id in sorted(pack_ids):
            yield from self._load(database, [pack_id]).values()

    def _record(self, database: sqlite3.Connection, pack: Pack, answers: Sequence[Answer]) -> None:
        """Record the answers to all requests of a pack."""
        lines = [answer.line for answer in answers]
        insert_lines(database, pack.request_ids, lines, is_compressed=self._is_compressed)
        answered = pack.with_usage(_usage_columns(answers))
        _update(database, answered, {"model": _model(lines[0])})

    def _release(self, database: sqlite3.Connection, pack: Pack, indexes: Sequence[int]) -> None:
        request_ids = [pack.request_ids[index] for index in indexes]
        lines = read_lines(database.execute, request_ids) if pack.is_answered else {}
        database.executemany(
            _INSERT_ROW,
            (
                (request_id, pack.custom_id(index), *(pack.tokens(index) if pack.is_answered else _NO_TOKENS), pack.id)
                for request_id, index in zip(request_ids, indexes, strict=True)
            ),
        )
        database.executemany(_INSERT_LINE, lines.items())
        if rest := sorted({*range(len(pack))} - {*indexes}):
            _update(database, pack.select(rest))
        else:
            self._delete(database, pack.id)

    def _delete(self, database: sqlite3.Connection, pack_id: int) -> None:
        database.execute(_DELETE, (pack_id,))
        delete_lines(database, pack_id)


def _update(database: sqlite3.Connection, pack: Pack, further: Mapping[str, Any] | None = None) -> None:
    columns = {**pack.columns(), **(further or {})}
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    statement = f"UPDATE packs SET {assignments} WHERE id = :id"  # noqa: S608  # the names are constants of this package
    database.execute(statement, {**columns, "id": pack.id})


def _is_plain(outcome: Outcome | None) -> TypeGuard[Answer]:
    """Return whether an outcome is an answer at the price of a batch, which a pack can hold."""
    return (
        isinstance(outcome, Answer)
        and outcome.tier is None
        and max(outcome.tokens) <= MAX_TOKENS
        and max(outcome.token_details) <= MAX_TOKENS
    )


def _are_plain(outcomes: list[Outcome | None]) -> TypeGuard[list[Answer]]:
    """Return whether all outcomes are plain, as nearly always; see `_is_plain`."""
    if set(map(type, outcomes)) != {Answer}:
        return False
    answers = cast("list[Answer]", outcomes)
    return {answer.tier for answer in answers} == {None} and max(map(max, _usage_columns(answers))) <= MAX_TOKENS


def _usage_columns(answers: Sequence[Answer]) -> list[Sequence[int]]:
    """Return the billed tokens of answers, as `Pack.usage` has columns; the last three only if an answer has them."""
    pairs = [answer.tokens for answer in answers]
    # Two lists take a third of the time of `zip(*pairs)`.
    columns: list[Sequence[int]] = [[tokens_in for tokens_in, _ in pairs], [tokens_out for _, tokens_out in pairs]]
    details = [answer.token_details for answer in answers]
    return columns if details.count(NO_DETAILS) == len(details) else [*columns, *zip(*details, strict=True)]


def _model(line: bytes) -> str | None:
    return str(Answer(line, (0, 0)).body.get("model") or "") or None


def _json(values: Iterable[int]) -> str:
    return orjson.dumps(list(values)).decode()
