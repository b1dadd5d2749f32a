"""Tests of `install`: the patches are in place when the plugin is imported, and leave other pipelines alone."""

from __future__ import annotations

import subprocess
import sys

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch.hooks import clients, registry
from distilabel_openai_batch.hooks.install import install
from distilabel_openai_batch.plugin.base import BatchClient


def test_importing_the_plugin_installs_the_patches():
    """No instance is made: a step's process imports the class alone."""
    program = (
        "from distilabel.steps import Step; original = Step.process_applying_mappings;"
        " from distilabel_openai_batch import OpenAIBatchLLM;"
        " assert Step.process_applying_mappings.__wrapped__ is original"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_install_may_be_called_again():
    before = list(registry._installed)
    install(BatchClient)
    assert registry._installed == before
    assert clients._client_types == (BatchClient,)


def test_a_pipeline_without_a_client_is_not_changed():
    """The patched and the released distilabel describe, schedule and process such a pipeline alike."""

    def describe() -> list[object]:
        with Pipeline(name="without-a-client") as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
            task = TextGeneration(name="generate", llm=OpenAILLM(model="gpt-4o-mini", api_key="sk-unused"))
            load >> [task, TextGeneration(name="other", llm=OpenAILLM(model="gpt-4o-mini", api_key="sk-unused"))]
        task.load()
        output = {"generations": ["It."], "statistics": {"input_tokens": [1], "output_tokens": [1]}}
        return [
            pipeline.dump(),
            pipeline.signature,
            pipeline.get_load_stages(),
            task.is_global,
            task.get_outputs(),
            task._format_outputs(output, {"instruction": "Say it."}),
        ]

    patched = describe()
    registry.uninstall()
    try:
        assert patched == describe()
    finally:
        registry.install()
