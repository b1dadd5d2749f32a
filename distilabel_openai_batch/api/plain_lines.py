"""Plain result lines: answers that are read without building the objects of the whole line.

A result line has some thirty objects, of which the engine needs seven before the answer is delivered. msgspec builds
these alone, in half of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from distilabel_openai_batch.api.encoding import read_count
from distilabel_openai_batch.api.usage import TokenDetails


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    # Details under the names of `/v1/responses` make the line unusual.
    input_tokens_details: None = None
    output_tokens_details: None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage
    error: None = None
    output: msgspec.UnsetType = msgspec.UNSET


class _Response(msgspec.Struct):
    body: _Body
    status_code: int = 200


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response
    error: None = None


_decoder = msgspec.json.Decoder(_Line)


class PlainLine(NamedTuple):
    """An answer's line without anything unusual.

    Attributes:
        custom_id: the `custom_id` of the request.
        tokens: billed tokens, in and out.
        details: the details of `tokens`.
        is_whole: `True` if the answer has one choice.
    """

    custom_id: str
    tokens: tuple[int, int]
    details: TokenDetails
    is_whole: bool


def read_plain_line(line: bytes) -> PlainLine | None:
    """Read the line of a chat completion whose first choice ended by itself.

    Args:
        line: a line of an output file.

    Returns:
        The line's values; `None` if anything about the line is unusual, so that the line has to be parsed as a whole.
    """
    # Answers of other endpoints have no choices, and are long.
    if b'"choices"' not in line:
        return None
    try:
        # msgspec skips fields without a check of their UTF-8 → decode the whole line.
        values = _decoder.decode(line.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    response, choices, usage = values.response, values.response.body.choices, values.response.body.usage
    if not choices or choices[0].finish_reason == "length" or not 200 <= response.status_code < 300:
        return None
    tokens = read_count(usage.prompt_tokens), read_count(usage.completion_tokens)
    details = _read_details(usage.prompt_tokens_details, usage.completion_tokens_details)
    return PlainLine(values.custom_id, tokens, details, len(choices) == 1)


def _read_details(details_in: _InputDetails | None, details_out: _OutputDetails | None) -> TokenDetails:
    cached = written = reasoning = 0
    if details_in:
        cached, written = read_count(details_in.cached_tokens), read_count(details_in.cache_write_tokens)
    if details_out:
        reasoning = read_count(details_out.reasoning_tokens)
    return cached, written, reasoning
