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
            `add_failures` (`bool`), `session()` (an asynchronous context manager) and `begin_run(steps)`, and perhaps
            `keep_reasoning` (`bool`).
    """
    global _client_types
    if client_type not in _client_types:
        _client_types += (client_type,)


def batch_client(step: Any) -> Any:
    """Return the Batch API client in a field of a step, or `None`.

    The fields are `llm`, which `ImageGeneration` sets too, `embeddings` and `moderation_model`.
    """
    for name in ("llm", "embeddings", "moderation_model"):
        client = getattr(step, name, None)
        if isinstance(client, _client_types):
            return client
    return None


def task_batch_client(step: Any) -> Any:
    """Return the client of a step, or of the Task in the step's field `task` (as in `SubmitBatch`), or `None`."""
    return batch_client(step) or batch_client(getattr(step, "task", None))


def batch_clients(step: Any) -> list[Any]:
    """Return all clients of a step, the members of a `MixtureOfAgentsLLM` included."""
    llm = getattr(step, "llm", None)
    members = [llm.aggregator_llm, *llm.proposers_llms] if isinstance(llm, MixtureOfAgentsLLM) else []
    found = [task_batch_client(step), *members]
    return [client for client in found if isinstance(client, _client_types)]


def uses_batch_client(step: Any) -> bool:
    """Return whether a step sends requests through a client, which may be a member of a `MixtureOfAgentsLLM`."""
    return bool(batch_clients(step))


def pipeline_uses_batch_client(pipeline: Any) -> bool:
    """Return whether any step of a pipeline sends requests through a client."""
    return any(uses_batch_client(pipeline.dag.get_step(name)["step"]) for name in pipeline.dag)


def begin_run(pipeline: Any) -> None:
    """Tell each client of a pipeline that a run begins now, before the steps are sent to their processes."""
    for name in pipeline.dag:
        for client in batch_clients(pipeline.dag.get_step(name)["step"]):
            client.begin_run(tuple(pipeline.dag))
