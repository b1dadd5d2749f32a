"""Leave a server's address out of a saved pipeline if the address came from the environment.

A pipeline that is rehearsed against the sandbox has the sandbox's address from `OPENAI_BASE_URL`. distilabel would
write the address into the YAML, and each later run of the file would go to the sandbox. An address that the user set
stays.

Replaced: `BasePipeline.save`. The dump itself keeps the address: distilabel computes the names of its caches from the
dump, and a run at another server must not find the rehearsal's cache.
"""

from __future__ import annotations

from typing import Any

from distilabel.pipeline.base import BasePipeline

from distilabel_openai_batch.hooks.clients import batch_clients
from distilabel_openai_batch.hooks.registry import patch

_ADDRESS = "base_url"


@patch(BasePipeline, "save", parameters=["self", "path", "format", "dump", "kwargs"])
def _save(original: Any, self: Any, path: Any = None, format: Any = "json", dump: Any = None, **kwargs: Any) -> None:
    """Save a pipeline without the addresses of the environment."""
    clients = [client for name in self.dag for client in batch_clients(self.dag.get_step(name)["step"])]
    if dump is None and clients:
        dump = self.dump(**kwargs)
        set_by_user = {client.base_url for client in clients if _ADDRESS in client.model_fields_set}
        _remove_addresses(dump, {client.base_url for client in clients} - set_by_user)
    original(self, path, format, dump, **kwargs)


def _remove_addresses(dump: Any, addresses: set[str | None]) -> None:
    """Remove some addresses from each model of a dump."""
    if isinstance(dump, dict):
        if "type_info" in dump and dump.get(_ADDRESS) in addresses:
            dump.pop(_ADDRESS, None)
        dump = list(dump.values())
    if isinstance(dump, list):
        for part in dump:
            _remove_addresses(part, addresses)
