"""The public face: what is imported from `distilabel_openai_batch`, and what stays as it is."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("name", ["OpenAIBatchLLM", "AzureOpenAIBatchLLM"])
def test_yaml_finds_the_class_where_it_always_was(name):
    """The class's module is written into every YAML file."""
    assert getattr(distilabel_openai_batch, name).__module__ == "distilabel_openai_batch"


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
