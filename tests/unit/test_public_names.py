"""Tests of the public names, and of the identity of the public classes in YAML and pickles."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import pickle
import subprocess
import sys

import pytest
from distilabel.utils.serialization import _get_module_attr

import distilabel_openai_batch
from distilabel_openai_batch import errors

PUBLIC_NAMES = [
    "AuthenticationError",
    "AzureOpenAIBatchLLM",
    "BatchFailedError",
    "BudgetError",
    "ConnectionFailedError",
    "InternalError",
    "InvalidParametersError",
    "InvalidSettingError",
    "LedgerError",
    "LoadBatchResults",
    "MissingSettingError",
    "ModerateTexts",
    "NoGenerationsError",
    "Observer",
    "OpenAIBatchEmbeddings",
    "OpenAIBatchError",
    "OpenAIBatchImageGeneration",
    "OpenAIBatchLLM",
    "OpenAIBatchModeration",
    "OpenTelemetryObserver",
    "QuotaError",
    "RequestsFailedError",
    "RunError",
    "StorageFullError",
    "StreamBatchResults",
    "SubmitBatch",
    "UnmatchedAnswersError",
]


def test_the_public_names_are_complete():
    """Users notice each name that is added or removed."""
    assert distilabel_openai_batch.__all__ == PUBLIC_NAMES
    assert set(PUBLIC_NAMES) <= set(dir(distilabel_openai_batch))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_each_public_name_has_a_docstring(name):
    assert getattr(distilabel_openai_batch, name).__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'OpenAIBatchLM'"):
        distilabel_openai_batch.OpenAIBatchLM  # noqa: B018


def test_every_exception_is_an_openai_batch_error():
    """`except OpenAIBatchError` catches every exception of the package."""
    raised = [getattr(errors, name) for name in PUBLIC_NAMES if name.endswith("Error")]
    assert all(issubclass(error, distilabel_openai_batch.OpenAIBatchError) for error in raised)


PLUGIN_CLASSES = [name for name in PUBLIC_NAMES if not name.endswith(("Error", "Observer"))]


@pytest.mark.parametrize("name", PLUGIN_CLASSES)
def test_yaml_names_the_package_as_a_class_s_module(name):
    """YAML files name the module, so moving a class must not change the module's name."""
    cls = getattr(distilabel_openai_batch, name)
    assert cls.__module__ == "distilabel_openai_batch"
    assert _get_module_attr("distilabel_openai_batch", name) is cls


@pytest.mark.parametrize("name", PLUGIN_CLASSES)
def test_pickle_finds_a_class_at_the_package(name):
    """distilabel pickles each step for the step's process."""
    cls = getattr(distilabel_openai_batch, name)
    assert b"distilabel_openai_batch" in pickle.dumps(cls, protocol=0).split(b"\n")[0]
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_the_package_is_typed():
    """`py.typed` lets type checkers read the annotations of the package."""
    assert importlib.resources.files("distilabel_openai_batch").joinpath("py.typed").is_file()


def test_the_version_is_the_version_of_the_installed_distribution():
    """The build reads `__version__` from the package."""
    assert distilabel_openai_batch.__version__ == importlib.metadata.version("distilabel-openai-batch")


def test_the_command_line_does_not_import_distilabel():
    """The import takes seconds, and `--help` does not need it."""
    program = "import sys, distilabel_openai_batch.cli; sys.exit('distilabel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
