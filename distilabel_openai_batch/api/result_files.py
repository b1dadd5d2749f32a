"""A job's output and error file, joined with its requests without holding the answers in memory.

The files are read twice: first to find the line that counts for each request, because lines come in any order and any
number; then in the order of the requests, so that the ledger stores neighbouring requests together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from io import BufferedReader, BytesIO, FileIO, RawIOBase

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.api.outcomes import (
    MISSING_RESULT,
    UNNAMED_RESULT,
    Answer,
    Outcome,
    is_result_object,
    parse_result_line,
    usage_of,
)
from distilabel_openai_batch.api.plain_lines import PlainLines, read_plain_lines
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage

# Kinds of a request's outcome: a failure, or none, is 0. A whole answer has one choice that no limit cut.
_ANSWER, _WHOLE = 1, 2

# Bytes of lines that the first reading parses together, about.
_BLOCK_BYTES = 131_072

# Bytes that either reading takes from a file at once; the second reading only if lines follow each other.
_READ_BYTES = 262_144

# Requests whose lines the second reading looks up together.
_CHUNK = 1_000


_Places = npt.NDArray[np.int64]


class JobResults:
    """The outcome of each request of a job; iterate once to get `custom_id`s and outcomes in the requests' order.

    If several lines name a request, the first counts, but an answer counts more than a failure. A request that no line
    names has the outcome `missing`.

    Args:
        custom_ids: the `custom_id`s of the requests.
        files: the job's files that exist (output, error), opened without a buffer.

    Attributes:
        missing: the failure of a request that no line names.
        stray_lines: number of lines that name none of the requests, or are malformed.
        answers: number of requests that the server answered, usable or not.
        reported: number of requests that a line names.
        usage: tokens billed for these answers.
        model: the model's name in the first answer.
    """

    def __init__(self, custom_ids: Sequence[str], files: Sequence[RawIOBase | BytesIO]) -> None:
        self._custom_ids = custom_ids
        self._files = files
        count = len(custom_ids)
        # The line of each request: the number of the file, -1 for no line; start and length in bytes; billed tokens.
        self._numbers = np.full(count, -1, np.int8)
        self._starts = np.zeros(count, np.int64)
        self._lengths = np.zeros(count, np.int64)
        self._tokens = np.zeros((5, count), np.int32)
        self._kinds = np.zeros(count, np.int8)
        self.missing = MISSING_RESULT
        self.stray_lines = 0
        self.answers = self.reported = 0
        self._foreign_lines = 0
        self._billed_failures: list[Usage] = []
        self.model = ""
        self._read_all()
        self.usage = self._sum_usage()

    def __iter__(self) -> Iterator[tuple[str, Outcome]]:
        reader = _LineReader(self._files)
        # The caller stores each outcome → free the text of each `custom_id` meanwhile.
        custom_ids, self._custom_ids = [*reversed(self._custom_ids)], []
        for start in range(0, len(custom_ids), _CHUNK):
            part = slice(start, start + _CHUNK)
            columns = [column[part].tolist() for column in (self._numbers, self._starts, self._lengths, self._kinds)]
            for number, begin, length, kind, tokens_in, tokens_out, *details in zip(
                *columns, *self._tokens[:, part].tolist(), strict=True
            ):
                custom_id = custom_ids.pop()
                line = reader.read(number, begin, length)
                if kind:
                    yield custom_id, Answer(line, (tokens_in, tokens_out), tuple(details), is_whole=kind == _WHOLE)
                else:
                    result = parse_result_line(line)
                    yield custom_id, result[1] if result else self.missing

    def _read_all(self) -> None:
        places = _Index(self._custom_ids)
        for number, file in enumerate(self._files):
            for start, block in _read_blocks(file):
                lines = read_plain_lines(block)
                if lines is None or not self._note_lines(lines, places, block, number, start):
                    for offset, line in _split(block):
                        self._note_line(line, places, number, start + offset)
        # Another job would end the same way, and would be billed too → no transient failure.
        if not self.reported and self._foreign_lines >= len(self._custom_ids) > 0:
            self.missing = UNNAMED_RESULT

    def _note_lines(self, lines: PlainLines, index: _Index, block: bytes, number: int, start: int) -> bool:
        """Remember the lines of a block together; return `False` if they have to be read one by one."""
        places = index.find_all(lines.custom_ids)
        if places is None or self._kinds[places].any():
            return False
        ends = lines.ends
        starts = np.concatenate(([0], ends[:-1]))
        kinds = np.where(lines.is_whole, _WHOLE, _ANSWER)
        kinds[lines.unusual] = 0
        plain = np.flatnonzero(kinds)
        answered = places[plain]
        if len(plain) and not self.answers:
            self._note_model(block[starts[plain[0]] : ends[plain[0]]])
        self.answers += len(plain)
        self.reported += int((self._numbers[answered] < 0).sum())
        self._numbers[answered] = number
        self._starts[answered] = start + starts[plain]
        self._lengths[answered] = (ends - starts)[plain]
        self._tokens[:, answered] = lines.usage[:, plain]
        self._kinds[answered] = kinds[plain]
        for unusual in lines.unusual:
            self._note_line(block[starts[unusual] : ends[unusual]], index, number, start + int(starts[unusual]))
        return True

    def _note_line(self, line: bytes, index: _Index, number: int, start: int) -> None:
        """Remember a request's line if it is the first, or the first answer after failures."""
        if line.isspace():
            return
        result = parse_result_line(line)
        place = index.find(result[0]) if result else None
        if result is None or place is None:
            self.stray_lines += 1
            self._foreign_lines += not self.reported and is_result_object(line)
            return
        outcome, is_first = result[1], self._numbers[place] < 0
        if self._kinds[place] or not (is_first or isinstance(outcome, Answer)):
            return
        self.reported += int(is_first)
        self._numbers[place], self._starts[place], self._lengths[place] = number, start, len(line)
        if isinstance(outcome, Answer):
            if not self.answers:
                self._note_model(line)
            self.answers += 1
            self._kinds[place] = _WHOLE if outcome.is_whole else _ANSWER
            self._tokens[:, place] = (*outcome.tokens, *outcome.token_details)
        elif outcome.is_billed:
            self.answers += 1
            self._billed_failures.append(usage_of(outcome))

    def _note_model(self, line: bytes) -> None:
        self.model = str(Answer(line, (0, 0)).body.get("model") or "")

    def _sum_usage(self) -> Usage:
        """Return the tokens of all billed outcomes."""
        long_prompts = tuple(
            Usage(*self._tokens[:, place].tolist()) for place in np.flatnonzero(self._tokens[0] > LONG_PROMPT)
        )
        tokens_in, tokens_out, cached, written, reasoning = self._tokens.sum(axis=1, dtype=np.int64).tolist()
        usage = Usage(tokens_in, tokens_out, cached, written, reasoning, long_prompts)
        return sum(self._billed_failures, usage)


class _Index:
    """The places of requests by `custom_id`.

    Args:
        custom_ids: the `custom_id`s of the requests, all different.
    """

    def __init__(self, custom_ids: Sequence[str]) -> None:
        self._custom_ids = custom_ids
        self._next = 0

    @cached_property
    def _places(self) -> dict[str, int]:
        return {custom_id: place for place, custom_id in enumerate(self._custom_ids)}

    def find(self, custom_id: str) -> int | None:
        """Return the place of a request; `None` for no request."""
        return self._places.get(custom_id)

    def find_all(self, custom_ids: Sequence[str]) -> _Places | None:
        """Return the places of requests; `None` if one is no request, or is there twice."""
        # Many servers answer in the order of the requests → compare with the next ones, without a dictionary.
        start, end = self._next, self._next + len(custom_ids)
        if self._custom_ids[start:end] == custom_ids:
            self._next = end
            return np.arange(start, end)
        found = {*map(self._places.get, custom_ids)}
        if None in found or len(found) < len(custom_ids):
            return None
        places = [*map(self._places.__getitem__, custom_ids)]
        self._next = places[-1] + 1
        return np.array(places)


class _LineReader:
    """Lines of files, by their places.

    Args:
        files: the files, opened without a buffer.
    """

    def __init__(self, files: Sequence[RawIOBase | BytesIO]) -> None:
        self._readers = [_read_at(file) for file in files]
        self._number = -1
        self._end = self._start = 0
        self._text = b""

    def read(self, number: int, start: int, length: int) -> bytes:
        """Return a line; no bytes for the number -1.

        Args:
            number: the number of the file.
            start: the offset of the line, in bytes.
            length: the length of the line, in bytes.
        """
        if number < 0:
            return b""
        is_next = number == self._number and start == self._end
        self._number, self._end = number, start + length
        if not is_next:
            self._text = b""
            return self._readers[number](length, start)
        # Lines in the order of the requests → read the following lines too.
        if self._end > self._start + len(self._text) or not self._text:
            self._start, self._text = start, self._readers[number](max(length, _READ_BYTES), start)
        return self._text[start - self._start : self._end - self._start]


def _read_at(file: RawIOBase | BytesIO) -> Callable[[int, int], bytes]:
    """Return a function that reads a number of bytes from a place of a file."""
    if isinstance(file, FileIO) and hasattr(os, "pread"):
        return partial(os.pread, file.fileno())

    def read(length: int, start: int) -> bytes:
        file.seek(start)
        return file.read(length) or b""

    return read


def _read_blocks(file: RawIOBase | BytesIO) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines of a file with their start, in bytes."""
    start = 0
    buffered = BufferedReader(file, _READ_BYTES)
    while block := buffered.read(_BLOCK_BYTES) + buffered.readline():
        yield start, block
        start += len(block)
    # A `BufferedReader` closes its file when it is deleted → detach the file.
    buffered.detach()


def _split(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a block with their offsets, in bytes."""
    offset = 0
    for line in BytesIO(block):
        yield offset, line
        offset += len(line)
