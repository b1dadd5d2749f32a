"""A local server that speaks the OpenAI Batch API, for tests, demos and benchmarks.

It answers nothing by thought: every answer is a function of the request. What it is faithful to is how the API behaves:
how batches are validated, progress, end and fail. Whatever goes wrong with the real one can be made to go wrong here.
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
