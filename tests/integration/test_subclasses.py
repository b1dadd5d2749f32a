"""Subclasses of `OpenAIBatchLLM` that override `agenerate`: outputs equal those of the same subclass of `OpenAILLM`."""

from __future__ import annotations

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, InvalidParametersError, OpenAIBatchLLM
from distilabel_openai_batch.sandbox import Fault, RequestFailure

CHATS = [[{"role": "user", "content": f"Say number {number}."}] for number in range(4)]
SHORTER = {"role": "user", "content": "Shorter, please."}


def persona(base):
    class Persona(base):
        async def agenerate(self, input, num_generations: int = 1, max_new_tokens: int = 128):
            assert input[-1]["role"] == "user"
            pirate = {"role": "system", "content": "You are a pirate."}
            return await super().agenerate([pirate, *input], num_generations, max_new_tokens)

    return Persona


def twice(base):
    class Twice(base):
        async def agenerate(self, input, **kwargs):
            first = await super().agenerate(input, **kwargs)
            draft = {"role": "assistant", "content": first["generations"][0]}
            return await super().agenerate([*input, draft, SHORTER], **kwargs)

    return Twice


def stripped(base):
    class Stripped(base):
        async def _generate_chat_completion(self, *args, **kwargs):
            output = await super()._generate_chat_completion(*args, **kwargs)
            return output | {"generations": [text[:9] for text in output["generations"]]}

    return Stripped


def one_by_one(base):
    class OneByOne(base):
        _num_generations_param_supported = False

    return OneByOne


def silent(base):
    class Silent(base):
        async def agenerate(self, input, num_generations: int = 1):
            return {"generations": [None], "statistics": {"input_tokens": [0], "output_tokens": [0]}}

    return Silent


def picky(base):
    class Picky(base):
        async def agenerate(self, input, num_generations: int = 1):
            if "number 2" in input[-1]["content"]:
                raise KeyError("two")
            return await super().agenerate(input, num_generations)

    return Picky


def load_llm(subclass, base=OpenAIBatchLLM, **fields):
    """Load an LLM of a subclass.

    Args:
        subclass: function that derives the class from a base class.
        base: the base class.
        **fields: fields of the LLM.
    """
    polling = {"min_poll_interval": 0.02} if base is OpenAIBatchLLM else {}
    llm = subclass(base)(model="gpt-4o-mini", **polling, **fields)
    llm.load()
    return llm


def failure_messages(llm, **fields) -> list[str | None]:
    """Return the message in the failure column of each row that a Task makes."""
    task = TextGeneration(name="generate", llm=llm, **fields)
    task.load()
    rows = next(task.process_applying_mappings([{"instruction": chat[0]["content"]} for chat in CHATS]))
    return [row["failure_generate"] and row["failure_generate"]["message"] for row in rows]


@pytest.mark.parametrize("num_generations", [1, 2])
@pytest.mark.parametrize("subclass", [persona, twice, stripped, one_by_one, silent])
def test_subclass_gives_the_same_outputs_with_both_llms(sandbox, subclass, num_generations):
    """The subclass may make several calls, and may change the chat and the answer."""
    expected = load_llm(subclass, OpenAILLM).generate(CHATS, num_generations)
    assert load_llm(subclass).generate(CHATS, num_generations) == expected


def test_second_calls_of_all_rows_are_one_job(sandbox):
    """The first calls of all rows are one job too."""
    load_llm(twice).generate(CHATS)
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [4, 4]


@pytest.mark.parametrize("contains", ["number 1.", "Shorter"])
def test_failed_request_of_a_subclass_is_none_in_its_row(sandbox, contains):
    """The first or the second call may fail; the failure column has the reason."""
    sandbox.configure(failures=[RequestFailure(contains=contains, message="No.")])
    messages = failure_messages(load_llm(twice, add_failures=True))
    assert [message is None for message in messages] == [contains != "Shorter" and n != 1 for n in range(4)]
    assert {message for message in messages if message} == {"No."}


def test_failed_generation_is_none_in_its_place(sandbox):
    """Without support for `n` each generation is a request of its own."""
    sandbox.configure(failures=[RequestFailure(contains="number 1.", message="No.", times=1)])
    outputs = load_llm(one_by_one).generate(CHATS, 2)
    assert [output["generations"].count(None) for output in outputs] == [0, 1, 0, 0]


def test_error_for_one_input_costs_its_own_row_only(sandbox):
    """The failure column has the error."""
    assert failure_messages(load_llm(picky, add_failures=True)) == [
        None,
        None,
        "`Picky.agenerate` raised KeyError('two')",
        None,
    ]


def test_error_for_every_input_is_raised(sandbox):
    """`OpenAILLM` raises the same error."""
    with pytest.raises(KeyError, match="two"):
        load_llm(picky).generate(CHATS[2:3])
    with pytest.raises(InvalidParametersError, match="temperature"):
        load_llm(twice).generate(CHATS, temperature="hot")


def test_error_of_the_run_ends_the_run(sandbox):
    """An error of the run is no failure of a row."""
    sandbox.add_fault(Fault(call="files.create", kind="status", status=401, times=-1))
    with pytest.raises(AuthenticationError):
        load_llm(twice).generate(CHATS)
