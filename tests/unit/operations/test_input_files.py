"""Tests of `operations.input_files`, against the sandbox."""

from __future__ import annotations

import logging
from contextlib import closing

import openai
import pytest

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.operations.input_files import InputFiles

LINES = [b'{"custom_id":"a","body":{"prompt":"Why is the SKY blue?"}}', '{"custom_id":"b","body":"Ärger"}'.encode()]


@pytest.fixture
def files(tmp_path):
    with closing(InputFiles(tmp_path, logging.getLogger("test.input_files"))) as files:
        yield files


def upload(sandbox, content: bytes) -> str:
    client = openai.OpenAI(base_url=sandbox.base_url)
    return client.files.create(file=("input.jsonl", content), purpose="batch").id


async def test_the_lines_of_a_file_are_known_and_found_once_it_is_loaded(sandbox, files, tmp_path):
    file_id = upload(sandbox, b"\n".join(LINES) + b"\n\n")
    assert files.find(["a", "b"], "sky") == set()
    await files.load(sandbox.base_url, file_id)
    downloads = sandbox.books()
    await files.load(sandbox.base_url, file_id)
    assert sandbox.books() == downloads
    assert files.lines(["a", "b", "c"]) == {"a": LINES[0], "b": LINES[1]}
    assert files.find(["a", "b"], "sky") == {"a"}
    assert files.find(["a", "b"], "ärger") == {"b"}
    assert files.find(["b"], "sky") == set()
    assert [path.name for path in tmp_path.iterdir()] == ["requests.sqlite3"]


async def test_a_file_that_is_gone_and_a_job_without_a_file_are_errors(sandbox, files):
    with pytest.raises(OpenAIBatchError, match=r"^The input file file-gone cannot be downloaded: .*file-gone"):
        await files.load(sandbox.base_url, "file-gone")
    with pytest.raises(OpenAIBatchError, match=r"^These requests have no input file"):
        await files.load(sandbox.base_url, None)
