"""Takes from distilabel what makes tests wait, and changes nothing of what it does."""

import functools
import inspect
import time
import types

from distilabel.mixins import runtime_parameters
from distilabel.models import llms
from distilabel.pipeline import base
from distilabel.utils.docstring import parse_google_docstring


def hurry() -> None:
    """Has distilabel look more often than every 2.5 s whether its steps have loaded, and inspect each of them once.

    It inspects them all whenever it writes down how far the pipeline is: a fifth of the time of a short one.
    """
    base.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.1)), time=time.time)
    inspect_once = types.SimpleNamespace(**vars(inspect) | {"signature": functools.cache(inspect.signature)})
    llms.base.inspect = runtime_parameters.inspect = inspect_once
    runtime_parameters.parse_google_docstring = functools.cache(parse_google_docstring)
