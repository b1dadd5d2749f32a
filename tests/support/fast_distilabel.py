"""Shorten the waits of distilabel that make tests slow; its behaviour stays the same."""

import functools
import inspect
import time
import types

from distilabel.mixins import runtime_parameters
from distilabel.models import llms
from distilabel.pipeline import base
from distilabel.utils.docstring import parse_google_docstring


def speed_up_distilabel() -> None:
    """Shorten the pauses between distilabel's checks from 2.5 s to 0.1 s, and inspect each step only once.

    distilabel inspects all steps whenever it saves the pipeline's progress, and all fields of a model once for each
    field: a third of the time of a short pipeline.
    """
    base.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.1)), time=time.time)
    inspect_once = types.SimpleNamespace(**vars(inspect) | {"signature": functools.cache(inspect.signature)})
    llms.base.inspect = runtime_parameters.inspect = inspect_once
    runtime_parameters.parse_google_docstring = functools.cache(parse_google_docstring)
    _list_names_once()


def _list_names_once() -> None:
    """List the runtime parameters of a model once while distilabel describes them, not once for each field."""
    listed = {}
    mixin = runtime_parameters.RuntimeParametersMixin
    describe = mixin.get_runtime_parameters_info

    def describe_with_names(self):
        listed[id(self)] = self.runtime_parameters_names
        try:
            return describe(self)
        finally:
            del listed[id(self)]

    mixin.get_runtime_parameters_info = describe_with_names
    for owner in (mixin, runtime_parameters.RuntimeParametersModelMixin):
        owner.runtime_parameters_names = _remembering(owner.runtime_parameters_names.fget, listed)


def _remembering(list_names, listed):
    """Return a property that returns remembered names, unless a subclass adds to the property."""

    def names(self):
        if id(self) in listed and type(self).runtime_parameters_names is remembering:
            return listed[id(self)]
        return list_names(self)

    remembering = property(names)
    return remembering
