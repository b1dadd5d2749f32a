"""What a job's output and error file say of its requests, read without holding them in memory. Pure.

The files are read twice. Once to see which line counts for each request: lines come in any order, any number of times.
And once in the order of the requests, so that what is written down stands together on the disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from io import BufferedReader, BytesIO, RawIOBase

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Outcome, parse_result_line
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage


class JobResults:
    """Joins a job's requests with the lines of its files.

    Of two lines that name a request the first counts, but an answer counts more than a failure. A request that no line
    names has `MISSING_RESULT`.

    Args:
        custom_ids: of the requests.
        files: the output and the error file, those that there are, opened without a buffer.
    """

    def __init__(self, custom_ids: Sequence[str], files: Sequence[RawIOBase | BytesIO]) -> None:
        self._custom_ids = custom_ids
        self._files = files
        # For each request the file, the place and the length of its line, and tokens: 48 bytes.
        self._lines = array("q", [-1, 0, 0, 0, 0, 0]) * len(custom_ids)
        self._is_answer = bytearray(len(custom_ids))
        self.stray_lines = 0
        """Lines that belong to none of the requests, or make no sense."""
        self.answers = 0
        """Requests that have an answer."""
        self.tokens = (0, 0)
        """Tokens billed for the answers, in and out."""
        self.cached_tokens = 0
        """Those of the tokens in that the server had in its cache."""
        self.long_prompts: list[Usage] = []
        """Those of each answer to a prompt that may have a price of its own."""
        self.model = ""
        """The model that answered, by the name that the first answer has for it."""
        self._read_all()

    def __iter__(self) -> Iterator[tuple[str, Outcome]]:
        """The outcome of each request, in their order."""
        for place, custom_id in enumerate(self._custom_ids):
            number, start, length, tokens_in, tokens_out, cached = self._lines[6 * place : 6 * place + 6]
            line = self._line(number, start, length) if number >= 0 else b""
            if self._is_answer[place]:
                yield custom_id, Answer(line, (tokens_in, tokens_out), cached)
            else:
                decoded = parse_result_line(line)
                yield custom_id, decoded[1] if decoded else MISSING_RESULT

    def _line(self, number: int, start: int, length: int) -> bytes:
        file = self._files[number]
        file.seek(start)
        return file.read(length) or b""

    def _read_all(self) -> None:
        places = {custom_id: place for place, custom_id in enumerate(self._custom_ids)}
        for number, file in enumerate(self._files):
            for start, line in _lines(file):
                if not line.strip():
                    continue
                decoded = parse_result_line(line)
                place = places.get(decoded[0]) if decoded else None
                if decoded is None or place is None:
                    self.stray_lines += 1
                    continue
                self._note(place, decoded[1], (number, start, len(line)))

    def _note(self, place: int, outcome: Outcome, line: tuple[int, int, int]) -> None:
        """A line names a request: it counts where no other does, or an answer comes after a failure."""
        if self._is_answer[place]:
            return
        if isinstance(outcome, Answer):
            tokens_in, tokens_out = outcome.tokens
            self._is_answer[place] = True
            if not self.answers:
                self.model = str(outcome.body.get("model") or "")
            self.answers += 1
            self.cached_tokens += outcome.cached_tokens
            if tokens_in > LONG_PROMPT:
                self.long_prompts.append(Usage(tokens_in, tokens_out, outcome.cached_tokens))
            self.tokens = (self.tokens[0] + tokens_in, self.tokens[1] + tokens_out)
            self._lines[6 * place : 6 * place + 6] = array("q", (*line, tokens_in, tokens_out, outcome.cached_tokens))
        elif self._lines[6 * place] < 0:
            self._lines[6 * place : 6 * place + 3] = array("q", line)


def _lines(file: RawIOBase | BytesIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, and where each begins."""
    start = 0
    buffered = BufferedReader(file)
    for line in buffered:
        yield start, line
        start += len(line)
    # It would close the file when it goes.
    buffered.detach()
