"""Log lines about billed tokens and dollars."""

from __future__ import annotations

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.prices import Cost, format_cost
from distilabel_openai_batch.text import plural


def describe_cost(cost: Cost, source: str) -> str:
    """Return the line about the cost of a run.

    Args:
        cost: the cost.
        source: the kind of the prices, such as "list prices".
    """
    texts = format_cost(cost)
    unknown = " The prices of some answers are unknown." if cost.is_lower_bound else ""
    return (
        f"💵 The answers of this run cost {texts.spent} by {source}, {texts.saved} less than synchronous"
        f" answers.{unknown}"
    )


def describe_sync_requests(requests: int, usage: Usage) -> str:
    """Return the line about requests outside batches.

    Args:
        requests: the number of requests.
        usage: the tokens billed for these requests.
    """
    return (
        f"💸 {plural(requests, 'request')} went to the synchronous endpoint, at full price: {usage.tokens_in:,} tokens"
        f" in and {usage.tokens_out:,} out, at twice the price of a batch."
    )


def describe_rejected_requests(requests: int) -> str:
    """Return the line about requests outside batches that the server rejected."""
    verb = "was" if requests == 1 else "were"
    return f"🚫 {plural(requests, 'request')} to the synchronous endpoint {verb} rejected, and not billed."


def describe_usage_difference(billed: Usage, collected: Usage) -> str:
    """Return the end of a line about a batch whose bill differs from its result lines.

    Args:
        billed: the tokens that the batch object shows.
        collected: the tokens that the result lines show.
    """
    lost, gained = billed.beyond(collected), collected.beyond(billed)
    parts = [
        f"{usage.tokens_in:,} tokens in and {usage.tokens_out:,} out were {text}"
        for usage, text in ((lost, "billed, not collected"), (gained, "collected, not billed"))
        if any(usage.totals())
    ]
    hint = " `costs` counts the billed tokens." if any(lost.totals()) else ""
    return f"shows another usage than its result lines: {'; '.join(parts)}.{hint}"
