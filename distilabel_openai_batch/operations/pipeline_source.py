"""Pipelines that a command names: a YAML or JSON file, a Python file, or an attribute of a module.

Importing a script that runs its pipeline stops at `pipeline.run()`: the pipeline is returned, and does not run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from distilabel.pipeline import Pipeline
from distilabel.utils.serialization import read_json, read_yaml

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.operations.unknown_names import unknown_fields, unknown_parameters
from distilabel_openai_batch.text import shortlist


class _RunReachedError(BaseException):
    """Call of `pipeline.run` while a script is imported.

    It is no `Exception`, so that a script does not handle it.

    Args:
        pipeline: the pipeline.
        parameters: the runtime parameters of the call.
    """

    def __init__(self, pipeline: Any, parameters: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.parameters = parameters or {}


def load_pipeline(source: str, parameters: Mapping[str, Any]) -> Pipeline:
    """Return a validated pipeline with its runtime parameters set.

    Args:
        source: the path of a YAML, JSON or Python file, or `module:attribute`; a Python file may be followed by
            `:attribute` too. The attribute is a pipeline, or a function without arguments that returns one.
        parameters: runtime parameters, as `Pipeline.run` takes them.

    Raises:
        OpenAIBatchError: the source has no pipeline, or the source or the parameters have an unknown name.
    """
    try:
        path = Path(source)
        is_python = path.suffix not in (".yaml", ".yml", ".json") and (path.suffix == ".py" or ":" in source)
        pipeline, own_parameters = _load_python(source) if is_python else (Pipeline.from_file(path), {})
        parameters = {**own_parameters, **parameters}
        steps = {name: pipeline.dag.get_step(name)["step"] for name in pipeline.dag}
        unknown = list(unknown_parameters(steps, parameters))
        if not is_python:
            content = (read_json if path.suffix == ".json" else read_yaml)(path)
            unknown = [*unknown_fields(content["pipeline"]["steps"]), *unknown]
        pipeline._set_runtime_parameters(parameters)
        pipeline._set_pipeline_name()
        pipeline.dag.validate()
    except Exception as error:
        raise OpenAIBatchError(f"{source} cannot be loaded as a pipeline: {error}") from None
    if unknown:
        listed = "".join(f"\n  {sentence}" for sentence in unknown)
        raise OpenAIBatchError(f"distilabel ignores unknown names, so a run would not do what was written:{listed}")
    return pipeline


def _load_python(source: str) -> tuple[Any, Mapping[str, Any]]:
    """Return the pipeline of a Python file or module, and the parameters with which the file runs the pipeline."""
    place, _, attribute = source.rpartition(":") if ":" in source else (source, "", "")
    try:
        with _runs_raising():
            module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
            value = _find_attribute(module, attribute) if attribute else _find_only_pipeline(module)
            return (value if isinstance(value, Pipeline) else value()), {}
    except _RunReachedError as reached:
        return reached.pipeline, reached.parameters


@contextmanager
def _runs_raising() -> Iterator[None]:
    """Let `run` raise instead of running a pipeline."""

    def run(self: Any, parameters: Mapping[str, Any] | None = None, *_: Any, **__: Any) -> None:
        raise _RunReachedError(self, parameters)

    classes: list[Any] = [Pipeline]
    with suppress(ImportError):
        classes.append(importlib.import_module("distilabel.pipeline.ray").RayPipeline)
    originals = [(owner, owner.run) for owner in classes]
    try:
        for owner, _ in originals:
            owner.run = run
        yield
    finally:
        for owner, original in originals:
            owner.run = original


def _import_file(path: Path) -> ModuleType:
    # Another name than `__main__` → the part of a script behind `if __name__ == "__main__"` is not executed.
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError("the file is no Python file")
    module = importlib.util.module_from_spec(spec)
    # A script imports its neighbours, and Tasks find their own module by its name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    return importlib.import_module(name)


def _find_attribute(module: ModuleType, attribute: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


def _find_only_pipeline(module: ModuleType) -> Any:
    found = {name: value for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if len({id(value) for value in found.values()}) != 1:
        names = shortlist(found, "pipeline")
        raise ValueError(f"the file has the pipelines {names}: name one, as `file.py:pipeline`")
    return next(iter(found.values()))
