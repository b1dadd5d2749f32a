"""The public face: what is imported from `distilabel_openai_batch`, and what stays as it is."""

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

FACE = [
    "AuthenticationError",
    "AzureOpenAIBatchLLM",
    "BatchFailedError",
    "BudgetError",
    "ConnectionFailedError",
    "InvalidParametersError",
    "LedgerError",
    "LoadBatchResults",
    "MissingSettingError",
    "OpenAIBatchEmbeddings",
    "OpenAIBatchError",
    "OpenAIBatchLLM",
    "QuotaError",
    "RequestsFailedError",
    "RunError",
    "StreamBatchResults",
    "SubmitBatch",
]


def test_the_face_is_these_names():
    """A name that is added or taken away is a change that users notice."""
    assert distilabel_openai_batch.__all__ == FACE
    assert set(FACE) <= set(dir(distilabel_openai_batch))


@pytest.mark.parametrize("name", FACE)
def test_each_name_can_be_imported(name):
    """Each is a class with a docstring."""
    assert getattr(distilabel_openai_batch, name).__doc__


def test_what_is_not_there_is_an_attribute_error():
    """As of any other module."""
    with pytest.raises(AttributeError, match="no attribute 'OpenAIBatchLM'"):
        distilabel_openai_batch.OpenAIBatchLM  # noqa: B018


def test_the_exceptions_are_one_tree():
    """Who catches `OpenAIBatchError` catches all of them."""
    raised = [getattr(errors, name) for name in FACE if name.endswith("Error")]
    assert all(issubclass(error, distilabel_openai_batch.OpenAIBatchError) for error in raised)


PLUGIN_CLASSES = [name for name in FACE if not name.endswith("Error")]


@pytest.mark.parametrize("name", PLUGIN_CLASSES)
def test_yaml_names_the_package_as_a_class_s_module(name):
    """Every YAML file names the module, so moving the class must not change it."""
    cls = getattr(distilabel_openai_batch, name)
    assert cls.__module__ == "distilabel_openai_batch"
    assert _get_module_attr("distilabel_openai_batch", name) is cls


@pytest.mark.parametrize("name", PLUGIN_CLASSES)
def test_pickle_finds_a_class_at_the_package(name):
    """Steps are pickled on their way to their processes."""
    cls = getattr(distilabel_openai_batch, name)
    assert b"distilabel_openai_batch" in pickle.dumps(cls, protocol=0).split(b"\n")[0]
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_the_package_is_typed():
    """mypy reads our annotations."""
    assert importlib.resources.files("distilabel_openai_batch").joinpath("py.typed").is_file()


def test_the_version_is_the_installed_one():
    """The build reads `__version__` from the package."""
    assert distilabel_openai_batch.__version__ == importlib.metadata.version("distilabel-openai-batch")


def test_the_command_line_does_not_wait_for_distilabel():
    """It takes seconds to import, and `--help` needs none of it."""
    program = "import sys, distilabel_openai_batch.cli; sys.exit('distilabel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
