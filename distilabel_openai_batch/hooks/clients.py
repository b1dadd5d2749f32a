"""Find the Batch API client that a step holds.

`plugin/` defines the client types, and no module of `hooks/` may import `plugin/`: the plugin registers each type by
`register_client_type`.
"""

from __future__ import annotations

from typing import Any

from distilabel.models.llms import MixtureOfAgentsLLM

_client_types: tuple[type, ...] = ()


def register_client_type(client_type: type) -> None:
    """Make all functions of this module recognise a class of clients.

    Args:
        client_type: the common base class of the plugin's LLMs and embeddings. An instance has the attributes
            `add_failures` (`bool`) and `session()` (an asynchronous context manager).
    """
    global _client_types
    if client_type not in _client_types:
        _client_types += (client_type,)


def batch_client(step: Any) -> Any:
    """Return the Batch API client in `step.llm` or `step.embeddings`, or `None`."""
    client = getattr(step, "llm", None)
    if isinstance(client, _client_types):
        return client
    client = getattr(step, "embeddings", None)
    return client if isinstance(client, _client_types) else None


def task_batch_client(step: Any) -> Any:
    """Return the client of a step, or of the Task in the step's field `task` (as in `SubmitBatch`), or `None`."""
    return batch_client(step) or batch_client(getattr(step, "task", None))


def uses_batch_client(step: Any) -> bool:
    """Return whether a step sends requests through a client, which may be a member of a `MixtureOfAgentsLLM`."""
    llm = getattr(step, "llm", None)
    members = [llm.aggregator_llm, *llm.proposers_llms] if isinstance(llm, MixtureOfAgentsLLM) else []
    return task_batch_client(step) is not None or any(isinstance(member, _client_types) for member in members)


def pipeline_uses_batch_client(pipeline: Any) -> bool:
    """Return whether any step of a pipeline sends requests through a client."""
    return any(uses_batch_client(pipeline.dag.get_step(name)["step"]) for name in pipeline.dag)
