"""Local server that speaks the OpenAI Batch API, for tests, demos and benchmarks.

Every answer is a function of the request: no model runs. The server is faithful to the behaviour of the API: how
batches are validated, progress, end and fail. Every failure of the real server can be ordered here.

The modules, each importing only modules below:

- `__main__`, `process`: start in the foreground, start in a process of its own.
- `server`, `app`, `middleware`: HTTP.
- `organization`: the account that is served; `batch_worker`, `batch_store`, `file_store`: its threads and its stores.
- `batches`, `files`, `results`, `validation`, `timeline`: one batch, one file, and their rules.
- `sync_traffic`: tiers and rate limits of synchronous calls; `webhooks`: signed notices about batches.
- `fault_schedule`, `faults`, `settings`, `dialect`, `records`, `errors`: inputs and outputs of a test.
- `model/`: the answers.
"""

from .app import create_app
from .dialect import Dialect
from .faults import AnyFault, BatchFault, Fault, ResultFault
from .process import Sandbox
from .records import Books, Call, Interval
from .server import serve
from .settings import RequestFailure, Settings

__all__ = [
    "AnyFault",
    "BatchFault",
    "Books",
    "Call",
    "Dialect",
    "Fault",
    "Interval",
    "RequestFailure",
    "ResultFault",
    "Sandbox",
    "Settings",
    "create_app",
    "serve",
]
