"""Subclasses of `OpenAIBatchLLM` with a way of their own: they are given what the same subclass of `OpenAILLM` is."""

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


def made(way, base=OpenAIBatchLLM, **fields):
    polling = {"min_poll_interval": 0.02} if base is OpenAIBatchLLM else {}
    llm = way(base)(model="gpt-4o-mini", **polling, **fields)
    llm.load()
    return llm


def reasons(llm, **fields) -> list[str | None]:
    """What a Task says of each row."""
    task = TextGeneration(name="generate", llm=llm, **fields)
    task.load()
    rows = next(task.process_applying_mappings([{"instruction": chat[0]["content"]} for chat in CHATS]))
    return [row["failure_generate"] and row["failure_generate"]["message"] for row in rows]


@pytest.mark.parametrize("num_generations", [1, 2])
@pytest.mark.parametrize("way", [persona, twice, stripped, one_by_one, silent])
def test_a_subclass_gets_what_it_gets_synchronously(sandbox, way, num_generations):
    """However often it asks, whatever it makes of the chat and of the answer."""
    expected = made(way, OpenAILLM).generate(CHATS, num_generations)
    assert made(way).generate(CHATS, num_generations) == expected


def test_what_a_subclass_asks_in_a_second_round_is_a_second_job(sandbox):
    """The first calls of all rows are one job, the second ones another."""
    made(twice).generate(CHATS)
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [4, 4]


@pytest.mark.parametrize("contains", ["number 1.", "Shorter"])
def test_a_request_of_a_subclass_that_fails_is_none_in_its_row(sandbox, contains):
    """In whichever round it was, and the row says why."""
    sandbox.configure(failures=[RequestFailure(contains=contains, message="No.")])
    told = reasons(made(twice, add_failures=True))
    assert [reason is None for reason in told] == [contains != "Shorter" and n != 1 for n in range(4)]
    assert {reason for reason in told if reason} == {"No."}


def test_a_generation_of_several_that_fails_is_none_in_its_place(sandbox):
    """Where each is a request of its own."""
    sandbox.configure(failures=[RequestFailure(contains="number 1.", message="No.", times=1)])
    outputs = made(one_by_one).generate(CHATS, 2)
    assert [output["generations"].count(None) for output in outputs] == [0, 1, 0, 0]


def test_a_subclass_that_raises_for_an_input_loses_its_row_alone(sandbox):
    """And the row says why."""
    assert reasons(made(picky, add_failures=True)) == [None, None, "`Picky.agenerate` raised KeyError('two')", None]


def test_a_subclass_that_raises_for_every_input_is_an_error(sandbox):
    """As with `OpenAILLM`."""
    with pytest.raises(KeyError, match="two"):
        made(picky).generate(CHATS[2:3])
    with pytest.raises(InvalidParametersError, match="temperature"):
        made(twice).generate(CHATS, temperature="hot")


def test_an_error_of_the_run_ends_a_subclass(sandbox):
    """It is no failure of a row."""
    sandbox.add_fault(Fault(call="files.create", kind="status", status=401, times=-1))
    with pytest.raises(AuthenticationError):
        made(twice).generate(CHATS)
