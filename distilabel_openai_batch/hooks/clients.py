"""Find the Batch API client that a step holds.

`plugin/` defines the client types, and no module of `hooks/` may import `plugin/`: the plugin registers each type by
`register_client_type`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distilabel.models.llms import MixtureOfAgentsLLM

_client_types: tuple[type, ...] = ()


def register_client_type(client_type: type) -> None:
    """Make all functions of this module recognise a class of clients.

    Args:
        client_type: the common base class of the plugin's LLMs and embeddings. An instance has the attributes
            `add_failures` (`bool`), `session()` (an asynchronous context manager), `begin_run(steps, tasks_after,
            answer_columns)` and `check_rows_by(check)`, and perhaps `stop_without_answers` and `keep_reasoning`
            (`bool`).
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
    dag = pipeline.dag
    steps = {name: dag.get_step(name)["step"] for name in dag}
    for name, step in steps.items():
        after, before = _reachable(dag.get_step_successors, name), _reachable(dag.get_step_predecessors, name)
        tasks_after = tuple(other for other in steps if other in after and uses_batch_client(steps[other]))
        answer_columns = frozenset(
            column
            for other in before
            if uses_batch_client(steps[other])
            or any(uses_batch_client(steps[first]) for first in _reachable(dag.get_step_predecessors, other))
            for column in steps[other].get_outputs()
        )
        for client in batch_clients(step):
            client.begin_run(tuple(steps), tasks_after, answer_columns)


def _reachable(neighbours: Callable[[str], Iterable[str]], name: str) -> set[str]:
    """Return the names of all steps that a step leads to, in the direction of `neighbours`."""
    found: set[str] = set()
    unvisited = [name]
    while unvisited:
        new = set(neighbours(unvisited.pop())) - found
        found |= new
        unvisited += new
    return found
