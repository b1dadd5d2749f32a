"""Requests whose bodies differ in one field: a text to embed, a text to moderate, a prompt of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from distilabel_openai_batch.api.failure_codes import MALFORMED_RESULT
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import BodyTemplate
from distilabel_openai_batch.engine.calls import APICall, CallGroup
from distilabel_openai_batch.engine.session import OutcomeReader, Session
from distilabel_openai_batch.plugin.base import BatchClient

T = TypeVar("T")


async def submit_items(
    client: BatchClient,
    endpoint: str,
    body: Mapping[str, Any],
    field: str,
    items: Sequence[Any],
    parse: Callable[[Mapping[str, Any]], T | None],
    result_name: str,
) -> list[T | None]:
    """Submit a request for each item, and read the answers.

    Args:
        client: a loaded client.
        endpoint: the path of the endpoint.
        body: the other fields of each body.
        field: the name of the field that holds an item.
        items: the items.
        parse: returns the result of an answer's body; `None` for a body without a result.
        result_name: the name of a result in the message of a failure (`"vector"`).

    Returns:
        The result of each item, in order; `None` where the request failed or the answer has no result.

    Raises:
        RunError: the run as a whole cannot go on.
    """
    template = BodyTemplate({**body, field: ""}, field)
    results: list[T | None] = []
    message = f"The answer has no {result_name}."

    def read(index: int, outcome: Outcome, custom_id: str | None) -> Failure | None:
        result = parse(outcome.body) if isinstance(outcome, Answer) else None
        results.append(result)
        return None if result else Failure(message, code=MALFORMED_RESULT, custom_id=custom_id)

    session: Session
    async with client.session() as session:
        await session.submit([CallGroup(APICall(endpoint, body, template=template), items)], OutcomeReader(read))
    return results
