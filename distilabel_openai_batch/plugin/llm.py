"""`OpenAIBatchLLM`: distilabel's LLM interface to the Batch API."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from distilabel.models.llms import OpenAILLM
from distilabel.models.llms.base import merge_responses
from distilabel.typing import FormattedInput
from pydantic import ValidationError, field_serializer, field_validator

from distilabel_openai_batch.api.failure_codes import MALFORMED_RESULT
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.engine.calls import APICall, CallLog
from distilabel_openai_batch.engine.session import OutcomeReader, Session
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.errors import InvalidParametersError, RunError
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.hooks import step_process
from distilabel_openai_batch.hooks.failure_columns import AnnotatedOutput
from distilabel_openai_batch.hooks.reasoning_columns import read_cells
from distilabel_openai_batch.plugin.bounds import OFFLINE_FIELD, check_number
from distilabel_openai_batch.plugin.call_capture import (
    capture_calls,
    check_parameters,
    describe_refusal,
    read_completion,
    read_plain_outputs,
)
from distilabel_openai_batch.plugin.chat_client import ChatClient
from distilabel_openai_batch.plugin.embeddings import embed
from distilabel_openai_batch.plugin.outputs import (
    complete_body,
    complete_output,
    failed_output,
    first_failure,
    with_failures,
    with_reasoning_cells,
)
from distilabel_openai_batch.plugin.public_class import public_class
from distilabel_openai_batch.plugin.reasoning import (
    accepts_reasoning_effort,
    with_reasoning,
)
from distilabel_openai_batch.plugin.sdk_stub import ClientStub, CompletionView, view
from distilabel_openai_batch.structured_output.options import dump_structured_output, parse_structured_output
from distilabel_openai_batch.text import message_kind, plural

if TYPE_CHECKING:
    from distilabel.typing import GenerateOutput, StandardInput

_T = TypeVar("_T")

# Number of inputs whose answers are in memory at the same time.
_INPUTS_PER_PART = 1_000

# Outcome of an input for which a subclass made no request.
_NO_REQUEST = Answer.of({})


class _RequestFailedError(RunError):
    """Error of an `agenerate` that is awaited on its own and whose request failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure), status_code=failure.status_code, code=failure.code)
        self.failure = failure


@public_class
class OpenAIBatchLLM(ChatClient, OpenAILLM):
    """OpenAI LLM that answers through the Batch API, at half the price of the synchronous endpoint.

    `OpenAIBatchLLM` replaces `OpenAILLM` in any pipeline, with no other change: the calls of all rows are collected,
    submitted as one batch job, and awaited. A row whose request failed for good has `None` for its generations; the log
    gives the reason.

    `structured_output` is the same as in `OpenAILLM`: a dictionary with `schema` (a pydantic model or a JSON schema)
    and optionally `mode` and `max_retries`; `instructor` is not needed. `mode` is `"json_schema"` (the default),
    `"tools"`, `"json_object"`, or one of instructor's names for them. If an answer does not fit the schema, the model
    is shown the error and asked again, up to `max_retries` times (1 by default); after that the generation is `None`,
    and the log gives the reason. Each of `num_generations` is checked.

    {fields}

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
            load >> TextGeneration(llm=OpenAIBatchLLM(model="gpt-6-luna"))

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```

        Generate text outside a pipeline:

        ```python
        from distilabel_openai_batch import OpenAIBatchLLM

        llm = OpenAIBatchLLM(model="gpt-6-luna")

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

        llm = OpenAIBatchLLM(model="gpt-6-luna", structured_output={"schema": User})

        llm.load()

        output = llm.generate_outputs(inputs=[[{"role": "user", "content": "Create a user profile for a marathon"}]])
        ```
    """

    @field_validator("structured_output", mode="before")
    @classmethod
    def _normalize_structured_output(cls, value: object) -> object:
        """Parse a schema given as text, and replace a member of `instructor.Mode`: distilabel's types know neither."""
        if not isinstance(value, dict):
            return value
        schema, mode = value.get("schema"), value.get("mode")
        return {
            **value,
            **({"schema": json.loads(schema)} if isinstance(schema, str) else {}),
            **({"mode": mode.value} if isinstance(mode, enum.Enum) else {}),
        }

    @field_validator(OFFLINE_FIELD)
    @classmethod
    def _check_offline_interval(cls, value: int | None) -> float | None:
        return check_number(OFFLINE_FIELD, value)

    @field_serializer("structured_output")
    def _dump_structured_output(self, value: object) -> object:
        """Write a class as its JSON schema, which any process can read and which changes with the class's fields."""
        return dump_structured_output(value)

    def __del__(self) -> None:
        """Close the event loop as distilabel does; an object with invalid arguments has no event loop."""
        if getattr(self, "__pydantic_private__", None) is not None:
            super().__del__()

    def load(self) -> None:
        """Prepare the calls to the server; no call is made yet.

        Raises:
            MissingSettingError: the API key is missing.
            ValueError: the API does not support `structured_output` as given.
        """
        super().load()
        self._aclient = ClientStub(self._complete)

    def _wait_and_schedule(self) -> tuple[bool, PollSchedule]:
        """Return `wait` and the poll intervals; distilabel's own fields for offline batches override both."""
        if not self.use_offline_batch_generation:
            wait_and_schedule: tuple[bool, PollSchedule] = super()._wait_and_schedule()
            return wait_and_schedule
        interval = self.offline_batch_generation_block_until_done
        return interval is not None, PollSchedule(interval, interval) if interval else super()._wait_and_schedule()[1]

    @staticmethod
    def _prepare_structured_output(
        structured_output: dict[str, Any], client: Any = None, framework: str | None = None
    ) -> dict[str, Any]:
        """Check `structured_output`, where `OpenAILLM` would wrap the client in `instructor`.

        Raises:
            ValueError: the API does not support `structured_output` as given.
        """
        parse_structured_output(structured_output)
        return {"client": client}

    # distilabel shows users the signature and the docstring of `agenerate`: take those of `OpenAILLM`.
    @accepts_reasoning_effort
    @functools.wraps(OpenAILLM.agenerate)
    async def agenerate(self, input: FormattedInput, *args: Any, **kwargs: Any) -> GenerateOutput:  # noqa: D102
        kwargs = with_reasoning(args, kwargs, self.reasoning_effort, is_chat=not isinstance(input, str))
        own_format = None
        if isinstance(input, tuple) and len(input) == 2:
            input, own_format = input
        structured_output = (self.structured_output or None) if own_format is None else own_format
        if structured_output is None or isinstance(input, str):
            return await super().agenerate(input, *args, **kwargs)
        # `OpenAILLM` handles an ordinary chat: the stub adds the format to the body, and answers arrive checked.
        plain = self.model_copy(update={"structured_output": None})
        plain._aclient = ClientStub(self._aclient.answer, parse_structured_output(structured_output))
        return await OpenAILLM.agenerate(plain, input, *args, **kwargs)

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        """Generate `num_generations` responses for each input, in as few batch jobs as possible.

        Several row groups of a pipeline may call this at the same time; so may a script or a notebook.

        Args:
            inputs: the inputs in chat format, or strings for the completions endpoint.
            num_generations: the number of generations for each input. Defaults to `1`.
            **kwargs: the parameters of `OpenAILLM.agenerate`.

        Returns:
            For each input, in order, its generations and statistics; `None` for each generation whose request failed.

        Raises:
            RunError: the run as a whole cannot go on: the key, the quota, a batch that the server did not accept, or
                the same failure of every request.
        """
        outputs = self.wait_for(partial(self._agenerate, inputs, num_generations, **kwargs))
        if (log := CallLog.active()) and not log.has_generation:
            log.has_generation = any(text is not None for output in outputs for text in output["generations"])
        return outputs

    def generate_outputs(
        self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """Call `generate`."""
        return self.generate(inputs, num_generations, **kwargs)

    def get_last_hidden_states(self, inputs: list[StandardInput]) -> list[list[Any]]:
        """Embed conversations, for the Task `GenerateEmbeddings`; `model` has to be a model for embeddings.

        OpenAI does not publish hidden states. The embedding takes the place of the last hidden state.

        Args:
            inputs: the conversations; the messages of each are embedded as one text, one line per message.

        Returns:
            For each conversation a list with one array: the vector, or `None` where the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        texts = ["\n".join(str(message["content"]) for message in conversation) for conversation in inputs]
        return [[np.array(vector)] for vector in self.wait_for(partial(embed, self, texts))]

    async def _agenerate(
        self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        self._warn_of_small_limit(kwargs)
        takes_n = self._num_generations_param_supported and self._endpoint() == "chat"
        if num_generations > 1 and not takes_n:
            return await self._agenerate_without_n(inputs, num_generations, kwargs)
        if not self._has_standard_calls:
            return await self._agenerate_by_subclass(inputs, num_generations, kwargs)
        check_parameters(self, num_generations, kwargs, self._adapt if self._endpoint() == "responses" else None)
        if len(inputs) <= _INPUTS_PER_PART:
            return await self._submit(inputs, num_generations, kwargs)
        # Each part releases its answers once its outputs are built → the memory of one part's answers at a time.
        parts = _split(inputs, _INPUTS_PER_PART)
        async with self.session():
            parted = asyncio.gather(
                *[_with_own_log(partial(self._submit, part, num_generations, kwargs)) for part in parts]
            )
            # The event loop's next turn builds the calls of all parts → one pause for all.
            pause = ExitStack()
            pause.enter_context(gc_paused())
            asyncio.get_running_loop().call_soon(pause.close)
            logged = await parted
        _log_outcomes([outcome for _, outcomes in logged for outcome in outcomes])
        return [output for outputs, _ in logged for output in outputs]

    @property
    def _has_standard_calls(self) -> bool:
        """`False` where a subclass overrides the way from an input to a call, or from an answer to the output."""
        return (
            type(self).agenerate is OpenAIBatchLLM.agenerate
            and type(self)._generate_chat_completion is OpenAILLM._generate_chat_completion
            and type(self)._generate_completion is OpenAILLM._generate_completion
        )

    async def _agenerate_without_n(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Submit one request per generation, for an endpoint or a subclass's server that does not support `n`."""
        repeated = [input for input in inputs for _ in range(num_generations)]
        outputs, outcomes = await _with_own_log(partial(self._agenerate, repeated, 1, **kwargs))
        _log_outcomes([_first_failure(group) for group in _split(outcomes, num_generations)])
        # `merge_responses` takes the keys of the first output → give a failed output the keys that it lacks.
        names = {name for output in outputs for name in output}
        failures = [next(iter(getattr(output, "failures", ())), None) for output in outputs]
        cells = [next(iter(getattr(output, "reasoning", ())), None) for output in outputs]
        completed: list[Any] = [{name: [None] for name in names} | output for output in outputs]
        return [
            with_reasoning_cells(with_failures(output, group), cell_group)
            for output, group, cell_group in zip(
                merge_responses(completed, n=num_generations),
                _split(failures, num_generations),
                _split(cells, num_generations),
                strict=True,
            )
        ]

    async def _agenerate_by_subclass(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Run a subclass's own `agenerate` for all inputs concurrently; each may make any number of calls."""
        async with self.session():
            logged = await asyncio.gather(
                *[_with_own_log(partial(self._agenerate_or_error, input, num_generations, kwargs)) for input in inputs]
            )
        errors = [output for output, _ in logged if isinstance(output, Exception)]
        if errors and len(errors) == len(inputs):
            if isinstance(errors[0], ValidationError):
                raise InvalidParametersError(describe_refusal(self, errors[0])) from None
            raise errors[0]
        outputs: list[GenerateOutput] = []
        reasons: list[Outcome] = []
        raised: dict[str, list[Failure]] = {}
        for output, outcomes in logged:
            reason = outcomes[-1] if outcomes else _NO_REQUEST
            if isinstance(output, Exception):
                reason = Failure(f"`{type(self).__name__}.agenerate` raised {output!r}")
                raised.setdefault(message_kind(reason.message), []).append(reason)
                outputs.append(failed_output(reason, num_generations))
            elif isinstance(output, AnnotatedOutput):
                outputs.append(output)
            else:
                # A subclass decides how many generations its output has → add reasons, and no generation.
                output = complete_output(output, reason, len(output["generations"]))
                outputs.append(with_reasoning_cells(output, self._reasoning_cells(reason)))
            reasons.append(reason)
        for alike in raised.values():
            others = f" So did {plural(len(alike) - 1, 'more input')}." if len(alike) > 1 else ""
            self._logger.warning(f"⚠️ {alike[0]}.{others}")
        _log_outcomes(reasons)
        return outputs

    async def _agenerate_or_error(
        self, input: FormattedInput, num_generations: int, kwargs: dict[str, Any]
    ) -> GenerateOutput | Exception:
        """Return the output of `agenerate`, or the error that it raises; raise an error that ends the run."""
        try:
            output: GenerateOutput = await self.agenerate(input=input, num_generations=num_generations, **kwargs)
        except _RequestFailedError as error:
            return failed_output(error.failure, num_generations)
        except step_process.PIPELINE_STOPPING_ERRORS:
            raise
        except Exception as error:
            return error
        return output

    async def _submit(
        self, inputs: Sequence[FormattedInput], num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Submit one request per input, and build the outputs from the answers."""
        outputs: list[Any] = []

        def read_plain(outcomes: Sequence[Outcome]) -> Sequence[int]:
            outputs.extend(read_plain_outputs(self, outcomes, num_generations))
            if self.keep_reasoning:
                return range(len(outputs))
            return [index for index, output in enumerate(outputs) if not output]

        def read(index: int, outcome: Outcome, custom_id: str | None) -> Failure | None:
            output = self._output(inputs[index], num_generations, kwargs, outcome, custom_id, outputs[index])
            outputs[index] = output
            return first_failure(output) if type(output) is AnnotatedOutput else None

        session: Session
        async with self.session() as session:
            calls = capture_calls(self, inputs, num_generations, kwargs, self._adapt)
            await session.submit(calls, OutcomeReader(read, read_plain))
        return outputs

    def _output(
        self,
        input: FormattedInput,
        num_generations: int,
        kwargs: dict[str, Any],
        outcome: Outcome,
        custom_id: str | None = None,
        plain: GenerateOutput | None = None,
    ) -> GenerateOutput:
        """Build distilabel's output from the outcome of a request; `plain` is the output of `read_plain_outputs`."""
        if isinstance(outcome, Failure):
            return failed_output(outcome, num_generations)
        body: dict[str, Any] = {}
        try:
            body = outcome.body
            # `view` changes the body.
            cells = read_cells(body) if self.keep_reasoning else None
            output = plain or read_completion(self, input, num_generations, kwargs, view(body))
            generations = output["generations"]
            if len(generations) < num_generations or not all(generations) or outcome.choice_failures:
                output = complete_output(output, outcome, num_generations, custom_id)
            return with_reasoning_cells(output, cells) if cells else output
        except Exception as error:
            message = f"The answer {body.get('id')} is not a completion: {error!r}"
            failure = Failure(message, code=MALFORMED_RESULT, tokens=outcome.tokens, custom_id=custom_id)
            return failed_output(failure, num_generations)

    def _reasoning_cells(self, outcome: Outcome) -> list[dict[str, Any] | None] | None:
        """Return the cells of the reasoning column for an answer; `None` if the column is not requested."""
        return read_cells(outcome.body) if self.keep_reasoning and isinstance(outcome, Answer) else None

    async def _complete(self, call: APICall) -> CompletionView:
        """Answer a single call, for an `agenerate` that is awaited on its own.

        Raises:
            _RequestFailedError: the request failed.
        """
        bodies: list[dict[str, Any]] = []

        def read(index: int, outcome: Outcome, custom_id: str | None) -> Failure | None:
            if isinstance(outcome, Failure):
                return None
            body, failure = complete_body(outcome, call, custom_id)
            bodies.append(body)
            return failure

        session: Session
        async with self.session() as session:
            [outcome] = await session.submit([self._adapt(call)], OutcomeReader(read))
        if isinstance(outcome, Failure):
            raise _RequestFailedError(outcome)
        completion: CompletionView = view(bodies[0])
        return completion


async def _with_own_log(answer: Callable[[], Awaitable[_T]]) -> tuple[_T, list[Outcome]]:
    """Run `answer` with its own outcome log; return its result and the logged outcomes.

    If the caller keeps no log, the list of outcomes is empty. The caller's log stays unchanged: several of these run
    concurrently, so the caller itself logs their outcomes in order.
    """
    if CallLog.active() is None:
        return await answer(), []
    with CallLog().activate() as log:
        return await answer(), log.outcomes


def _log_outcomes(outcomes: list[Outcome]) -> None:
    """Append the outcomes of a call of `generate`, one for each input, to the caller's log."""
    if log := CallLog.active():
        log.add(outcomes)


def _split(values: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _first_failure(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the first failure; the first outcome if no request failed."""
    return next((outcome for outcome in outcomes if isinstance(outcome, Failure)), outcomes[0])
