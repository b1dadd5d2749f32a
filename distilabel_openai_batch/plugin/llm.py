"""`OpenAIBatchLLM`: distilabel's face of the Batch API."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.llms import OpenAILLM
from distilabel.models.llms.base import merge_responses
from distilabel.typing import FormattedInput
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
)

from distilabel_openai_batch.api.failure_codes import MALFORMED
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Frame
from distilabel_openai_batch.engine.calls import Call, outcomes_seen
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.errors import InvalidParametersError, RunError
from distilabel_openai_batch.gc_pause import nothing_collected
from distilabel_openai_batch.hooks import step_process
from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.embeddings import embed
from distilabel_openai_batch.plugin.model_parameters import TokenLimitParameter, fitted
from distilabel_openai_batch.plugin.outputs import _failed, _unsaid, _with_failures
from distilabel_openai_batch.plugin.sdk_stub import _CHAT, _HANDING_OVER, _Client, _read, _Reading
from distilabel_openai_batch.structured_output.schema import portable, read

if TYPE_CHECKING:
    from distilabel.typing import GenerateOutput, StandardInput

_T = TypeVar("_T")


# Inputs whose answers are in memory together.
_ASKED_AT_ONCE = 1_000

# What became of an input for which nothing was asked.
_UNASKED = Answer.of({})

# As `OpenAILLM.agenerate` takes them, one by one.
_INPUTS: TypeAdapter[list[Any]] = TypeAdapter(list[FormattedInput])


class _NoAnswerError(RunError):
    """What an `agenerate` that is awaited by itself raises for a request that failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure), status_code=failure.status_code, code=failure.code)
        self.failure = failure


class OpenAIBatchLLM(BatchClient, OpenAILLM):
    """OpenAI LLM running through the Batch API, at half the price of the synchronous endpoint.

    It takes the place of `OpenAILLM` in any pipeline, with no other change: the calls of all rows are gathered,
    submitted as one batch job, and awaited. A row whose request failed for good has `None` for its generations; the log
    says why.

    Attributes:
        completion_window: the time within which the server has to answer a job. Defaults to `"24h"`, the only one that
            OpenAI offers.
        max_requests_per_job: the requests in one job, at most. Defaults to `50_000`, which is
            [OpenAI's limit](https://platform.openai.com/docs/guides/batch#rate-limits).
        max_bytes_per_job: the bytes of one job's input file, at most. Defaults to `200_000_000`; OpenAI's limit is
            200 MB.
        max_jobs: the jobs in flight at once, at most. Defaults to `50`. Eight are tried before it is known whether the
            server takes any, and more as it does.
        max_attempts: how often one request is put into a job before its row is given up. Only failures that may pass
            are asked again: rate limits, server errors, expiry. Defaults to `3`.
        min_poll_interval: the seconds between two looks at a job, at least. Defaults to `1.0`.
        max_poll_interval: the seconds between two looks at a job, at most. Defaults to `65.0`. In between, a job is
            looked at after each further twentieth of its age.
        wait: whether to wait for the jobs. Otherwise they are submitted, and the pipeline stops as it does with
            distilabel's offline batch generation; each further run collects what has been answered and gets one round
            of calls further. Defaults to `True`.
        reuse_answers: whether a run takes the answers that earlier runs of the same task of the same pipeline were
            given. Otherwise it asks anew, except for what was paid for and never handed over. Defaults to `True`.
        delete_files: whether to remove a job's files from the server once their content is in the ledger. Defaults to
            `False`.
        deadline: the seconds after which a job is not waited for any longer: it is cancelled, what it answered is kept,
            and the rest is asked synchronously, at full price. Counted from when the requests were asked. Defaults to
            `None`, for never.
        sync_below: where fewer requests than these are to be asked at once, they are asked synchronously, at full price
            and without waiting for a job. Defaults to `0`, for never. A dry run of the pipeline does so always.
        preflight: whether one request of each model is asked synchronously, at full price, before the others are
            submitted: a wrong model or parameter is known in seconds instead of when the job has ended. Its answer
            counts. Defaults to `False`.
        add_failures: whether each row says, in a column `failure_<step name>`, why it has no answer: a dictionary with
            `message`, `status_code`, `code` and `custom_id`; `None` where it has one. Defaults to `False`.
        token_limit_parameter: the name under which `max_new_tokens` is sent: `"max_tokens"` or
            `"max_completion_tokens"`. Defaults to `None`, for the one that OpenAI's model of that name takes.
        budget: the dollars that may be spent, at most. Before requests are submitted, their cost is estimated: list
            prices, and each answer as long as `max_new_tokens` allows. Where they may cost more than is left, nothing
            is submitted, and a `BudgetError` ends the run. It counts from `load` on: for each run of a step anew.
            Defaults to `None`, for no limit. It needs the extra `prices`.
        ledger_dir: the directory of the ledger, the file that remembers what was bought. Defaults to
            `$DISTILABEL_OPENAI_BATCH_DIR`, else `~/.cache/distilabel/openai_batch`.

    `structured_output` is that of `OpenAILLM`: a dictionary with `schema`, a pydantic model or a JSON schema, and maybe
    `mode` and `max_retries`. It needs no `instructor`. `mode` is `"json_schema"` (the default), `"tools"`,
    `"json_object"`, or one of instructor's names for them. An answer that does not fit is asked for again, with what is
    wrong told to the model, up to `max_retries` times (1 by default), and then is `None`; the log says why. Each of
    `num_generations` is held against the schema.

    Runtime parameters:
        - `completion_window`: the time within which the server has to answer a job. Defaults to `"24h"`.
        - `max_requests_per_job`: the requests in one job, at most. Defaults to `50_000`.
        - `max_bytes_per_job`: the bytes of one job's input file, at most. Defaults to `200_000_000`.
        - `max_jobs`: the jobs in flight at once, at most. Defaults to `50`.
        - `max_attempts`: how often one request is put into a job before its row is given up. Defaults to `3`.
        - `min_poll_interval`: the seconds between two looks at a job, at least. Defaults to `1.0`.
        - `max_poll_interval`: the seconds between two looks at a job, at most. Defaults to `65.0`.
        - `wait`: whether to wait for the jobs. Defaults to `True`.
        - `reuse_answers`: whether to take the answers that earlier runs were given. Defaults to `True`.
        - `delete_files`: whether to remove a job's files from the server in the end. Defaults to `False`.
        - `deadline`: the seconds after which what a job has not answered is asked synchronously.
        - `sync_below`: fewer requests than these are asked synchronously. Defaults to `0`.
        - `preflight`: whether one request is tried out before the others are submitted. Defaults to `False`.
        - `add_failures`: whether each row says, in a column of its own, why it has no answer. Defaults to `False`.
        - `token_limit_parameter`: the name under which `max_new_tokens` is sent.
        - `budget`: the dollars that may be spent, at most.
        - `ledger_dir`: the directory of the ledger.

    Icon:
        `:simple-openai:`

    Examples:
        Run a pipeline through the Batch API:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import OpenAIBatchLLM

        with Pipeline() as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
            load >> TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini"))

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```

        Generate text outside a pipeline:

        ```python
        from distilabel_openai_batch import OpenAIBatchLLM

        llm = OpenAIBatchLLM(model="gpt-4o-mini")

        llm.load()

        output = llm.generate_outputs(inputs=[[{"role": "user", "content": "Hello world!"}]])
        ```

        Generate structured data:

        ```python
        from pydantic import BaseModel
        from distilabel_openai_batch import OpenAIBatchLLM

        class User(BaseModel):
            name: str
            last_name: str
            id: int

        llm = OpenAIBatchLLM(model="gpt-4o-mini", structured_output={"schema": User})

        llm.load()

        output = llm.generate_outputs(inputs=[[{"role": "user", "content": "Create a user profile for a marathon"}]])
        ```
    """

    token_limit_parameter: RuntimeParameter[TokenLimitParameter] | None = Field(
        default=None,
        description="The name under which `max_new_tokens` is sent; else what OpenAI's model of that name takes.",
    )

    @field_validator("structured_output", mode="before")
    @classmethod
    def _in_distilabel_terms(cls, value: object) -> object:
        """Takes a schema given as text, and a member of `instructor.Mode`, which distilabel's types do not know."""
        if not isinstance(value, dict):
            return value
        schema, mode = value.get("schema"), value.get("mode")
        return {
            **value,
            **({"schema": json.loads(schema)} if isinstance(schema, str) else {}),
            **({"mode": mode.value} if isinstance(mode, enum.Enum) else {}),
        }

    @field_serializer("structured_output")
    def _portable(self, value: object) -> object:
        """A class is written as its JSON schema, which any process can read, and which changes with its fields."""
        return portable(value)

    def load(self) -> None:
        """Prepares the calls to the server; none is made yet.

        Raises:
            MissingSettingError: there is no API key.
            ValueError: `structured_output` cannot be asked for.
        """
        super().load()
        self._aclient = _Client(self._answer_one)

    def _waiting(self) -> tuple[bool, PollSchedule]:
        """As the fields; distilabel's own switches mean here what they mean there."""
        if not self.use_offline_batch_generation:
            waiting: tuple[bool, PollSchedule] = super()._waiting()
            return waiting
        interval = self.offline_batch_generation_block_until_done
        return interval is not None, PollSchedule(interval, interval) if interval else super()._waiting()[1]

    @staticmethod
    def _prepare_structured_output(
        structured_output: dict[str, Any], client: Any = None, framework: str | None = None
    ) -> dict[str, Any]:
        """Takes the place of what wraps the client in `instructor`.

        Raises:
            ValueError: it cannot be asked for.
        """
        read(structured_output)
        return {"client": client}

    # distilabel shows the signature and the docstring of the one that it wraps.
    @functools.wraps(OpenAILLM.agenerate)
    async def agenerate(self, input: FormattedInput, *args: Any, **kwargs: Any) -> GenerateOutput:  # noqa: D102
        own = None
        if isinstance(input, tuple) and len(input) == 2:
            input, own = input
        wanted = (self.structured_output or None) if own is None else own
        if wanted is None or isinstance(input, str):
            return await super().agenerate(input, *args, **kwargs)
        # For `OpenAILLM` it is an ordinary chat: what is wanted is added to the body, and the answer already has it.
        plain = self.model_copy(update={"structured_output": None})
        plain._aclient = _Client(self._aclient.answer, read(wanted))
        return await OpenAILLM.agenerate(plain, input, *args, **kwargs)

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        """Generates `num_generations` responses for each input, in as few batch jobs as possible.

        Called from several row groups of a pipeline at once, or outside a pipeline, in a script or a notebook.

        Args:
            inputs: the inputs in chat format, or strings for the completions endpoint.
            num_generations: the number of generations for each input. Defaults to `1`.
            **kwargs: the parameters of `OpenAILLM.agenerate`.

        Returns:
            For each input, in order, its generations and statistics; `None` for each generation where the request
            failed.

        Raises:
            RunError: the run as a whole cannot go on: the key, the quota, a batch that the server did not accept, or
                every request failed alike.
        """
        return self.wait_for(partial(self._agenerate, inputs, num_generations, **kwargs))

    def generate_outputs(
        self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """As `generate`."""
        return self.generate(inputs, num_generations, **kwargs)

    def get_last_hidden_states(self, inputs: list[StandardInput]) -> list[list[Any]]:
        """For `GenerateEmbeddings`: what a model for embeddings makes of each conversation.

        OpenAI shows nobody its models' hidden states. The vector stands where the last one of them would.

        Args:
            inputs: the conversations; several messages are embedded as one text, a line for each.

        Returns:
            For each, an array of the vector in a list; one of `None` where the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        texts = ["\n".join(str(message["content"]) for message in conversation) for conversation in inputs]
        return [[np.array(vector)] for vector in self.wait_for(partial(embed, self, texts))]

    async def _agenerate(
        self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        if not self._num_generations_param_supported and num_generations > 1:
            return await self._agenerate_one_by_one(inputs, num_generations, kwargs)
        if not self._is_plain:
            return await self._agenerate_freely(inputs, num_generations, kwargs)
        self._check(num_generations, kwargs)
        if len(inputs) <= _ASKED_AT_ONCE:
            return await self._ask(inputs, num_generations, kwargs)
        # In parts, each of which lets go of its answers as soon as it has made outputs of them.
        parts = _groups(inputs, _ASKED_AT_ONCE)
        async with self.session():
            answered = await asyncio.gather(
                *[_told(partial(self._ask, part, num_generations, kwargs)) for part in parts]
            )
        _tell([outcome for _, outcomes in answered for outcome in outcomes])
        return [output for outputs, _ in answered for output in outputs]

    @property
    def _is_plain(self) -> bool:
        """Whether no subclass has a way of its own from an input to a call, and from its answer to the output."""
        return (
            type(self).agenerate is OpenAIBatchLLM.agenerate
            and type(self)._generate_chat_completion is OpenAILLM._generate_chat_completion
            and type(self)._generate_completion is OpenAILLM._generate_completion
        )

    async def _agenerate_one_by_one(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """As distilabel, for a subclass that says that its server knows no `n`: each generation is a request."""
        repeated = [input for input in inputs for _ in range(num_generations)]
        outputs, outcomes = await _told(partial(self._agenerate, repeated, 1, **kwargs))
        _tell([_first_failure(group) for group in _groups(outcomes, num_generations)])
        # They are merged by what the first one has, and one that failed has less.
        names = {name for output in outputs for name in output}
        failures = [next(iter(getattr(output, "failures", ())), None) for output in outputs]
        whole: list[Any] = [{name: [None] for name in names} | output for output in outputs]
        return [
            _with_failures(output, group)
            for output, group in zip(
                merge_responses(whole, n=num_generations), _groups(failures, num_generations), strict=True
            )
        ]

    async def _agenerate_freely(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Has a subclass's `agenerate` run for each input side by side, which may ask as often as it likes."""
        async with self.session():
            answered = await asyncio.gather(
                *[_told(partial(self._try, input, num_generations, kwargs)) for input in inputs]
            )
        errors = [output for output, _ in answered if isinstance(output, Exception)]
        if errors and len(errors) == len(inputs):
            if isinstance(errors[0], ValidationError):
                raise InvalidParametersError(f"The generation parameters are wrong: {errors[0]}") from None
            raise errors[0]
        outputs: list[GenerateOutput] = []
        reasons: list[Outcome] = []
        for output, outcomes in answered:
            reason = outcomes[-1] if outcomes else _UNASKED
            if isinstance(output, Exception):
                reason = Failure(f"`{type(self).__name__}.agenerate` raised {output!r}")
                self._logger.warning(f"⚠️ {reason}.")
                outputs.append(_failed(reason, num_generations))
            else:
                outputs.append(self._explained(output, reason))
            reasons.append(reason)
        _tell(reasons)
        return outputs

    async def _try(
        self, input: FormattedInput, num_generations: int, kwargs: dict[str, Any]
    ) -> GenerateOutput | Exception:
        """What `agenerate` makes of an input, or raises; not what ends the run."""
        try:
            output: GenerateOutput = await self.agenerate(input=input, num_generations=num_generations, **kwargs)
        except _NoAnswerError as error:
            return _failed(error.failure, num_generations)
        except step_process.PIPELINE_STOPPING_ERRORS:
            raise
        except Exception as error:
            return error
        return output

    async def _ask(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        session: Session
        async with self.session() as session:
            outcomes = await session.ask(self._calls(inputs, num_generations, kwargs))
        with nothing_collected():
            return [
                self._output(input, num_generations, kwargs, outcome)
                for input, outcome in zip(inputs, outcomes, strict=True)
            ]

    def _output(
        self, input: FormattedInput, num_generations: int, kwargs: dict[str, Any], outcome: Outcome
    ) -> GenerateOutput:
        """What a request came to, in distilabel's form, with why some of it failed."""
        if isinstance(outcome, Failure):
            return _failed(outcome, num_generations)
        reading: _Reading = _read(outcome.body)
        try:
            output = self._read(input, num_generations, kwargs, reading)
        except Exception as error:
            told = f"The answer {reading.id} is not a completion: {error!r}"
            self._logger.warning(f"⚠️ {told}.")
            failure = Failure(told, code=MALFORMED, tokens=outcome.tokens, custom_id=outcome.custom_id)
            return _failed(failure, num_generations)
        return self._explained(output, outcome)

    def _explained(self, output: GenerateOutput, outcome: Outcome) -> GenerateOutput:
        """An output, with why some of its generations are `None`, if that is wanted."""
        if self.add_failures and None in output["generations"] and isinstance(outcome, Answer):
            return _with_failures(output, [_unsaid(outcome, *said) for said in enumerate(output["generations"])])
        return output

    def _check(self, num_generations: int, kwargs: dict[str, Any]) -> None:
        """Makes a call of nothing.

        Raises:
            InvalidParametersError: the parameters are wrong, whatever the input is.
        """
        try:
            with self._client_replaced_by(_HANDING_OVER):
                self._drive("", num_generations, kwargs)
        except ValidationError as error:
            raise InvalidParametersError(f"The generation parameters are not those of `OpenAILLM`: {error}") from None

    def _calls(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> Iterator[Call | Failure]:
        """The calls of the API that `agenerate` would make for inputs."""
        with self._client_replaced_by(_HANDING_OVER), nothing_collected():
            # Chats of one shape get bodies that differ in nothing but the messages: one call is made by `OpenAILLM`,
            # and the others, in a tenth of the time, from that one.
            patterns: dict[tuple[str, ...], Call] = {}
            for input, messages in zip(inputs, self._valid(inputs), strict=True):
                shape = _shape(messages)
                if shape in patterns:
                    pattern = patterns[shape]
                    yield Call(pattern.endpoint, {**pattern.body, "messages": messages}, frame=pattern.frame)
                    continue
                try:
                    call = self._drive(input, num_generations, kwargs)
                except Exception as error:
                    # Whatever is wrong with one input is no reason to lose the others.
                    yield Failure(f"The input cannot be made into a request: {error!r}")
                    continue
                call = self._fitted(call)
                if shape and call.body.get("messages") == messages:
                    # What is no JSON is said of each call.
                    with suppress(ValueError):
                        patterns[shape] = replace(call, frame=Frame(call.body, "messages"))
                yield call

    def _valid(self, inputs: Sequence[FormattedInput]) -> Sequence[Any]:
        """Inputs as `OpenAILLM.agenerate` has them once they are validated, or `None`s where it has to see each."""
        if not self.structured_output:
            with suppress(ValidationError):
                return _INPUTS.validate_python(inputs)
        return [None] * len(inputs)

    def _fitted(self, call: Call) -> Call:
        """A call as the model takes it."""
        if call.endpoint == _CHAT:
            call.body = fitted(call.body, self.token_limit_parameter)
        return call

    def _read(
        self, input: FormattedInput, num_generations: int, kwargs: dict[str, Any], reading: _Reading
    ) -> GenerateOutput:
        """What `agenerate` makes of the API's answer."""

        async def answer(call: Call) -> _Reading:
            return reading

        output: GenerateOutput
        if not isinstance(input, str):
            # All that it does with the answer to a chat, in half the time.
            output = self._generations_from_openai_completion(reading)
        else:
            with self._client_replaced_by(_Client(answer)):
                output = self._drive(input, num_generations, kwargs)
        return output

    @contextmanager
    def _client_replaced_by(self, client: _Client) -> Iterator[None]:
        """Has `OpenAILLM` ask another client, while nothing is awaited."""
        own, self._aclient = self._aclient, client
        try:
            yield
        finally:
            self._aclient = own

    def _drive(self, input: FormattedInput, num_generations: int, kwargs: dict[str, Any]) -> Any:
        """Runs `agenerate` by hand and in one go, for its call or for its answer.

        The hours between the two are too long to keep it waiting with all that it holds.

        Returns:
            The first call that the client hands over, or else what `agenerate` returns.
        """
        coroutine = self.agenerate(input=input, num_generations=num_generations, **kwargs)
        try:
            return coroutine.send(None)
        except StopIteration as returned:
            return returned.value
        finally:
            coroutine.close()

    async def _answer_one(self, call: Call) -> _Reading:
        """Answers a call of `agenerate`, awaited by itself."""
        session: Session
        async with self.session() as session:
            [outcome] = await session.ask([self._fitted(call)])
        if isinstance(outcome, Failure):
            raise _NoAnswerError(outcome)
        reading: _Reading = _read(outcome.body)
        return reading


async def _told(answer: Callable[[], Awaitable[_T]]) -> tuple[_T, list[Outcome]]:
    """What answering comes to, and, where somebody wants to know, what its requests did.

    It is told to nobody else: where several answer side by side, whoever started them tells it in order.
    """
    outer = outcomes_seen.get()
    seen: list[list[Outcome]] | None = None if outer is None else []
    token = outcomes_seen.set(seen)
    try:
        answered = await answer()
    finally:
        outcomes_seen.reset(token)
    return answered, [outcome for outcomes in seen or () for outcome in outcomes]


def _tell(outcomes: list[Outcome]) -> None:
    """Tells what a call's requests came to, one for each input."""
    if (seen := outcomes_seen.get()) is not None:
        seen.append(outcomes)


def _groups(values: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _first_failure(outcomes: Sequence[Outcome]) -> Outcome:
    """What is told of several requests: the first that failed, if one did."""
    return next((outcome for outcome in outcomes if isinstance(outcome, Failure)), outcomes[0])


def _shape(messages: Any) -> tuple[str, ...] | None:
    """All of a chat that decides what its body has besides the messages; `None` where it is not a chat of texts."""
    if not isinstance(messages, list) or not all(isinstance(message["content"], str) for message in messages):
        return None
    return tuple([message["role"] for message in messages])


# YAML names the class by its module: this is where it stays, wherever it is defined.
OpenAIBatchLLM.__module__ = "distilabel_openai_batch"
