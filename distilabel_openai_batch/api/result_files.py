"""A job's output and error file, joined with its requests without holding the answers in memory.

The files are read twice: first to find the line that counts for each request, because lines come in any order and any
number; then in the order of the requests, so that the ledger stores neighbouring requests together.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from io import BufferedReader, BytesIO, FileIO, RawIOBase

from distilabel_openai_batch.api.outcomes import (
    MISSING_RESULT,
    UNNAMED_RESULT,
    Answer,
    Outcome,
    is_result_object,
    parse_result_line,
    usage_of,
)
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage

# Kinds of a request's outcome: a failure, or none, is 0. A whole answer has one choice that no limit cut.
_ANSWER, _WHOLE = 1, 2


# Bytes that the first reading takes from a file at once.
_READ_BYTES = 262_144


class JobResults:
    """The outcome of each request of a job; iterate to get pairs of `custom_id` and outcome in the requests' order.

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
        # 64 bytes per request: number of the file, start and length of the line, tokens in and out, and their details.
        self._lines = array("q", [-1, 0, 0, 0, 0, 0, 0, 0]) * len(custom_ids)
        self._kinds = bytearray(len(custom_ids))
        self.missing = MISSING_RESULT
        self.stray_lines = 0
        self.answers = self.reported = 0
        self._billed_failures: list[Usage] = []
        self.model = ""
        self._read_all()
        self.usage = self._sum_usage()

    def __iter__(self) -> Iterator[tuple[str, Outcome]]:
        for place, custom_id in enumerate(self._custom_ids):
            number, start, length, *tokens = self._lines[8 * place : 8 * place + 8]
            line = self._line(number, start, length) if number >= 0 else b""
            if kind := self._kinds[place]:
                details = (tokens[2], tokens[3], tokens[4])
                yield custom_id, Answer(line, (tokens[0], tokens[1]), details, is_whole=kind == _WHOLE)
            else:
                result = parse_result_line(line)
                yield custom_id, result[1] if result else self.missing

    def _line(self, number: int, start: int, length: int) -> bytes:
        file = self._files[number]
        if isinstance(file, FileIO) and hasattr(os, "pread"):
            return os.pread(file.fileno(), length, start)
        file.seek(start)
        return file.read(length) or b""

    def _read_all(self) -> None:
        foreign_lines = 0
        places = {custom_id: place for place, custom_id in enumerate(self._custom_ids)}
        for number, file in enumerate(self._files):
            for start, line in _lines(file):
                if line.isspace():
                    continue
                result = parse_result_line(line)
                place = places.get(result[0]) if result else None
                if result is None or place is None:
                    self.stray_lines += 1
                    foreign_lines += not self.reported and is_result_object(line)
                    continue
                if not self._kinds[place]:
                    self._note(place, result[1], number, start, len(line))
        # Another job would end the same way, and would be billed too → no transient failure.
        if not self.reported and foreign_lines >= len(self._custom_ids) > 0:
            self.missing = UNNAMED_RESULT

    def _note(self, place: int, outcome: Outcome, number: int, start: int, length: int) -> None:
        """Remember a request's line if it is the first, or the first answer after failures."""
        slot = 8 * place
        is_first = self._lines[slot] < 0
        self.reported += is_first
        if isinstance(outcome, Answer):
            self._kinds[place] = _WHOLE if outcome.is_whole else _ANSWER
            if not self.answers:
                self.model = str(outcome.body.get("model") or "")
            self.answers += 1
            values = (number, start, length, *outcome.tokens, *outcome.token_details)
            self._lines[slot : slot + 8] = array("q", values)
        elif is_first:
            self._lines[slot : slot + 3] = array("q", (number, start, length))
            if outcome.is_billed:
                self.answers += 1
                self._billed_failures.append(usage_of(outcome))

    def _sum_usage(self) -> Usage:
        """Return the tokens of all billed outcomes."""
        tokens_in, tokens_out, cached, written, reasoning = (self._lines[3 + kind :: 8] for kind in range(5))
        long_places = [place for place, tokens in enumerate(tokens_in) if tokens > LONG_PROMPT]
        long_prompts = tuple(
            Usage(tokens_in[place], tokens_out[place], cached[place], written[place], reasoning[place])
            for place in long_places
        )
        usage = Usage(sum(tokens_in), sum(tokens_out), sum(cached), sum(written), sum(reasoning), long_prompts)
        return sum(self._billed_failures, usage)


def _lines(file: RawIOBase | BytesIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their start, in bytes."""
    start = 0
    buffered = BufferedReader(file, _READ_BYTES)
    for line in buffered:
        yield start, line
        start += len(line)
    # A `BufferedReader` closes its file when it is deleted → detach the file.
    buffered.detach()
