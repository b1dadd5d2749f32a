"""Limits on the sizes of a server's replies and files, so that a reply fills neither the memory nor the disk.

A file's limits follow from the requests whose answers the file holds, with a generous factor: no answer that the API
can give to these requests comes near.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from distilabel_openai_batch.api.replies import ReplyError

_MEBIBYTE = 2**20

# The tokens of an answer without a limit in its request. GPT-5 models write 128,000 at most, others twice as many.
# https://platform.openai.com/docs/models
_MOST_TOKENS = 262_144

# Parameters for the limit of an answer's tokens.
_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")

# Bytes of a token's text as JSON: English tokens have 4, and a token of escaped characters (`\u4f60`) some 20.
_TOKEN_BYTES = 64
# Bytes of a token of audio, as base64 of 24,000 samples a second with 2 bytes each, at some 10 tokens a second.
_AUDIO_TOKEN_BYTES = 8_192
# Bytes of one entry of the log probabilities: the token, its bytes as numbers, and the probability.
_LOGPROB_BYTES = 512
# Bytes of a number of a vector, and the longest vector without a limit in its request.
_NUMBER_BYTES = 32
_LONGEST_VECTOR = 16_384

# Bytes of an answer besides its tokens: ids, usage, filter results, and the reasoning that some servers write out and
# do not count in the token limit (32,000 tokens of 20 bytes).
_OTHER_BYTES = _MEBIBYTE

# A line up to this size, which is an answer of `_MOST_TOKENS`, is read whatever the request was.
_SMALLEST_LINE_LIMIT = 16 * _MEBIBYTE

# Requests of a batch whose number only the server knows: Azure's limit, the highest known limit.
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_MOST_REQUESTS = 100_000

# Bytes of any other reply. A list of 100 batches with full metadata has a megabyte.
_REPLY_BYTES = 64 * _MEBIBYTE

FILE_CONTENT = "application/binary"
"""Value of the header `Accept` by which a call requests a file's content; a redirection keeps the header."""


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """Limits on the size of a file on the server.

    Attributes:
        line_bytes: maximum of bytes between two line feeds.
        file_bytes: maximum of bytes of the file.
    """

    line_bytes: int
    file_bytes: int


INPUT_LIMIT = SizeLimit(128 * _MEBIBYTE, 1_024 * _MEBIBYTE)
"""Limits on an input file: servers accept 200 to 512 MB, and single requests with images some 50 MB."""

ROWS_LIMIT = SizeLimit(1_024 * _MEBIBYTE, 1_024 * _MEBIBYTE)
"""Limits on the file of a submission's rows: servers accept 512 MB."""


class AnswerSizes:
    """The largest answer that the requests of a session can have."""

    def __init__(self) -> None:
        self._answer_bytes = _OTHER_BYTES

    def add(self, body: Mapping[str, Any]) -> None:
        """Take a request's body into account."""
        self._answer_bytes = max(self._answer_bytes, answer_bytes(body))

    def limit(self, requests: int, total: int = 0) -> SizeLimit:
        """Return the limits on a result file.

        Args:
            requests: the number of requests of the batch that are known; 0 if none is.
            total: the number of requests as the server counts them; 0 if the server does not count.
        """
        line_bytes = max(_SMALLEST_LINE_LIMIT, self._answer_bytes)
        answers = max(requests, min(total, _MOST_REQUESTS)) or _MOST_REQUESTS
        return SizeLimit(line_bytes, max(line_bytes, answers * self._answer_bytes))


def answer_bytes(body: Mapping[str, Any]) -> int:
    """Return the maximum of bytes of the answer to a request, generously.

    The number is the product of `n`, the tokens, and the bytes of a token with its log probabilities, plus a constant
    for everything else.

    Args:
        body: the body of the request.
    """
    if "input" in body and not _is_response_request(body):
        return _OTHER_BYTES + _NUMBER_BYTES * _positive(body.get("dimensions"), _LONGEST_VECTOR)
    tokens = max(_positive(body.get(name), 0) for name in _LIMITS) or _MOST_TOKENS
    token_bytes = _AUDIO_TOKEN_BYTES if body.get("audio") else _TOKEN_BYTES
    if logprobs := body.get("logprobs") or body.get("include"):
        # The legacy endpoint has the number of the most probable tokens in `logprobs` itself.
        token_bytes += _LOGPROB_BYTES * (2 + _positive(body.get("top_logprobs"), _positive(logprobs, 0)))
    return _OTHER_BYTES + _positive(body.get("n"), 1) * tokens * token_bytes


def _is_response_request(body: Mapping[str, Any]) -> bool:
    """Return whether a body with `input` is a response's request, and no request of embeddings."""
    items = body["input"]
    return "max_output_tokens" in body or (isinstance(items, list) and any(isinstance(item, dict) for item in items))


def _positive(value: object, default: int) -> int:
    return value if type(value) is int and value > 0 else default


class OversizedReplyError(ReplyError):
    """Reply that exceeds the limit of a call's JSON."""


class EncodedReplyError(ReplyError):
    """Reply in an encoding that was not requested: a small reply may become a large one when it is decoded."""


def refused_encoding(headers: Mapping[str, str]) -> str | None:
    """Return the encoding of a reply, unless the reply is not encoded."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return encoding if encoding not in ("", "identity") else None


async def limit_reply(response: httpx.Response) -> None:
    """Limit the size of a response that was not read yet; a hook of `httpx.AsyncClient`.

    A file's content with a status of success is limited by the download.

    Raises:
        EncodedReplyError: the response has a status of success and is encoded, which was not requested.
    """
    encoding = refused_encoding(response.headers)
    if encoding and response.is_success:
        raise EncodedReplyError(f"The server's answer is encoded ({encoding!r}), which was not requested.")
    if encoding:
        # The status says enough → drop the encoded page.
        del response.headers["content-encoding"]
        response.stream = _LimitedStream(response.stream, 0, is_cut=True)
    elif not (response.is_success and response.request.headers.get("accept") == FILE_CONTENT):
        response.stream = _LimitedStream(response.stream, _REPLY_BYTES)


class _LimitedStream(httpx.AsyncByteStream):
    """Stream that ends, or raises, behind a number of bytes.

    Args:
        stream: the stream of a response.
        limit: maximum of bytes.
        is_cut: whether the stream ends at the limit instead of raising.
    """

    def __init__(self, stream: Any, limit: int, is_cut: bool = False) -> None:
        self._stream = stream
        self._limit = limit
        self._is_cut = is_cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._limit:
                if self._is_cut:
                    return
                raise OversizedReplyError(f"The server's answer exceeds {self._limit:,} bytes.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
