"""Pass the rows of a batch through the queues of a step with a client as bytes.

A process of its own holds the queues: it unpickles each batch that is put, and pickles the batch again for the process
that takes it. Bytes pass unchanged, and take less memory than rows while they wait.

Replaced: `_send_to_step`, which puts a batch into a step's queue.
"""

from __future__ import annotations

import dataclasses
from multiprocessing.reduction import ForkingPickler
from typing import Any

from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch

from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.registry import patch


def pack_rows(batch: Any) -> None:
    """Replace the rows of a batch by their pickle, unless a file has the rows or they cannot be pickled."""
    if batch.data and batch.data_path is None:
        try:
            batch.data = bytes(ForkingPickler.dumps(batch.data))
        except Exception:
            # The queue reports the error, or knows another way, as that of Ray.
            return


def unpack_rows(batch: Any) -> None:
    """Restore the rows of a batch if `pack_rows` has packed them."""
    if type(batch.data) is bytes:
        batch.data = ForkingPickler.loads(batch.data)


@patch(BasePipeline, "_send_to_step", parameters=["self", "step_name", "to_send"])
def _send_to_step(original: Any, self: Any, step_name: str, to_send: Any) -> None:
    """Pack the rows of a batch for a client's step; the batch itself stays as it is in the batch manager."""
    if isinstance(to_send, _Batch) and batch_client(self.dag.get_step(step_name)["step"]) is not None:
        to_send = dataclasses.replace(to_send)
        pack_rows(to_send)
    original(self, step_name, to_send)
