"""What a job's output and error file say of its requests, read without holding them in memory. Pure.

The files are read twice. Once to see which line counts for each request: lines come in any order, any number of times.
And once in the order of the requests, so that what is written down stands together on the disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from io import BufferedReader, BytesIO, RawIOBase

from distilabel_openai_batch.wire import MISSING_RESULT, Answer, Outcome, decode


class Results:
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
        # For each request the file, the place and the length of its line, in 24 bytes: a million fit anywhere.
        self._lines = array("q", [-1, 0, 0]) * len(custom_ids)
        self.strays = 0
        """Lines that belong to none of the requests, or make no sense."""
        self.answers = 0
        """Requests that have an answer."""
        self.tokens = (0, 0)
        """Tokens billed for the answers, in and out."""
        self._read_all()

    def __iter__(self) -> Iterator[tuple[str, Outcome]]:
        """The outcome of each request, in their order."""
        for place, custom_id in enumerate(self._custom_ids):
            number, start, length = self._lines[3 * place : 3 * place + 3]
            decoded = decode(self._line(number, start, length)) if number >= 0 else None
            yield custom_id, decoded[1] if decoded else MISSING_RESULT

    def _line(self, number: int, start: int, length: int) -> bytes:
        file = self._files[number]
        file.seek(start)
        return file.read(length) or b""

    def _read_all(self) -> None:
        places = {custom_id: place for place, custom_id in enumerate(self._custom_ids)}
        answered = bytearray(len(places))
        for number, file in enumerate(self._files):
            for start, line in _lines(file):
                if not line.strip():
                    continue
                decoded = decode(line)
                place = places.get(decoded[0]) if decoded else None
                if decoded is None or place is None:
                    self.strays += 1
                    continue
                outcome = decoded[1]
                is_answer = isinstance(outcome, Answer)
                if self._lines[3 * place] < 0 or (is_answer and not answered[place]):
                    self._lines[3 * place : 3 * place + 3] = array("q", (number, start, len(line)))
                    if is_answer:
                        answered[place] = True
                        self.answers += 1
                        self.tokens = (self.tokens[0] + outcome.tokens[0], self.tokens[1] + outcome.tokens[1])


def _lines(file: RawIOBase | BytesIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, and where each begins."""
    start = 0
    buffered = BufferedReader(file)
    for line in buffered:
        yield start, line
        start += len(line)
    # It would close the file when it goes.
    buffered.detach()
