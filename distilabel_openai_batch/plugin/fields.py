"""Fields that the LLMs and the embeddings of the Batch API share, and their checks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Dict, Literal  # noqa: UP035

from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.base_clients.openai import OpenAIBaseClient
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.extra_fields import public_fields
from distilabel_openai_batch.api.secrets import public_headers
from distilabel_openai_batch.display.notices import is_url
from distilabel_openai_batch.plugin.bounds import BOUNDS, check_number, clean_deadline
from distilabel_openai_batch.plugin.checked_arguments import CheckedArguments
from distilabel_openai_batch.plugin.extra_fields import check_extra_fields
from distilabel_openai_batch.pricing.price_book import load_own_prices
from distilabel_openai_batch.text import did_you_mean, escape_log_lines

_logger = escape_log_lines(logging.getLogger("distilabel.openai_batch"))

# On Python 3.10 `inspect.isclass(dict[str, str])` is true, and distilabel then cannot read a pipeline from its cache.
_Texts = Dict[str, str]  # noqa: UP006
_Values = Dict[str, Any]  # noqa: UP006


class BatchFields(CheckedArguments, OpenAIBaseClient):
    """Fields of a client of the Batch API."""

    model: str = Field(description="Name of the model, for example `gpt-6-luna` or `text-embedding-3-small`.")
    completion_window: RuntimeParameter[str] = Field(
        default="24h", description="Time within which the server has to end a job. OpenAI offers `24h` alone."
    )
    max_requests_per_job: RuntimeParameter[PositiveInt] = Field(
        default=50_000,
        description=(
            "Maximum number of requests in one job. 50,000 is"
            " [OpenAI's limit](https://platform.openai.com/docs/guides/batch#rate-limits)."
        ),
    )
    max_bytes_per_job: RuntimeParameter[PositiveInt] = Field(
        default=200_000_000,
        description=(
            "Maximum size of one job's input file, in bytes, and at least 1,000. 200 MB is"
            " [OpenAI's limit](https://platform.openai.com/docs/guides/batch#rate-limits)."
        ),
    )
    max_jobs: RuntimeParameter[PositiveInt] = Field(
        default=50,
        description=(
            "Maximum number of jobs in progress at the same time. At most 8 are created before the server has accepted"
            " the first one; more follow as the server accepts jobs."
        ),
    )
    max_attempts: RuntimeParameter[PositiveInt] = Field(
        default=3,
        description=(
            "Maximum number of jobs that one request is put into before its row gets `None`. Only temporary failures"
            " are retried: rate limits, server errors, expired batches."
        ),
    )
    min_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=1.0,
        description=(
            "Minimum time between two polls of a job, in seconds, and at most a day. The time grows to a twentieth of"
            " the job's age, but not above `max_poll_interval`."
        ),
    )
    max_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=65.0,
        description=(
            "Maximum time between two polls of a job, in seconds, and at most a day. With 65 seconds a job of 24 hours"
            " is polled 1,415 times."
        ),
    )
    wait: RuntimeParameter[bool] = Field(
        default=True,
        description=(
            "Wait until the jobs have ended. With `False` the run submits its jobs and stops the pipeline, like"
            " distilabel's offline batch generation; each later run collects the answers and submits the next round."
        ),
    )
    reuse_answers: RuntimeParameter[bool] = Field(
        default=True,
        description=(
            "Reuse the answers that earlier runs of the same task of the same pipeline received. With `False` all"
            " requests are submitted again, except requests whose answers were paid for and never delivered."
        ),
    )
    reuse_from: RuntimeParameter[str] | None = Field(
        default=None,
        description=(
            "Name of another scope, for example `old-pipeline/generate`, whose answers are used for equal requests: an"
            " earlier name of the pipeline, step or script, or another address of the server. The log names the scope"
            " if there is one. `None`: the answers of the run's own scope alone."
        ),
    )
    on_unmatched: RuntimeParameter[Literal["warn", "fail"]] = Field(
        default="warn",
        description=(
            "Treatment of requests that are about to be billed again: none of the Task's earlier answers matches after"
            " a change of the model, prompt or parameters, or another scope has the answers after a renaming. `warn`"
            " logs the reason, and pauses 10 seconds in a terminal, in which Ctrl+C stops the run before anything is"
            " submitted. `fail` ends the run with an `UnmatchedAnswersError`, for scheduled runs."
        ),
    )
    delete_files: RuntimeParameter[bool] = Field(
        default=False, description="Delete a job's files from the server once the ledger holds their content."
    )
    input_expires_after: RuntimeParameter[int] | None = Field(
        default=None,
        description=(
            "Time until the server deletes a job's input file, in seconds after the upload: 3,600 to 2,592,000. `None`:"
            " the server's default, 30 days at OpenAI."
        ),
    )
    output_expires_after: RuntimeParameter[int] | None = Field(
        default=None,
        description=(
            "Time until the server deletes a job's result files, in seconds after their creation: 3,600 to 2,592,000."
            " An answer that is collected later is lost, and billed again. `None`: the server's default, 30 days at"
            " OpenAI."
        ),
    )
    batch_metadata: RuntimeParameter[_Texts] | None = Field(
        default=None,
        description=(
            "Metadata of each batch, beside this package's own: up to 10 texts by name, for example a team or a ticket."
            " A `description` replaces the description `distilabel`."
        ),
    )
    upload_extra: RuntimeParameter[_Values] | None = Field(
        default=None,
        description=(
            "Further fields of each upload, for gateways: for example `target_model_names` or `custom_llm_provider` of"
            " LiteLLM's proxy."
        ),
    )
    batch_extra: RuntimeParameter[_Values] | None = Field(
        default=None,
        description=(
            "Further fields of each creation of a batch, for gateways: for example `custom_llm_provider` of LiteLLM's"
            " proxy, or Portkey's `portkey_options`."
        ),
    )
    batch_api: RuntimeParameter[Literal["openai", "azure", "together"]] | None = Field(
        default=None,
        description=(
            "Shape of the server's Batch API: `openai`, `azure` for Azure's names of endpoints below `/openai/v1`, or"
            " `together` for Together's uploads and creations. `None`: the shape of the host."
        ),
    )
    endpoint_path: RuntimeParameter[str | _Texts] | None = Field(
        default=None,
        description=(
            "Path that the requests name in input files, for servers with other paths than OpenAI's: for example"
            " `/v4/chat/completions`. A dictionary gives a path to each of OpenAI's paths"
            ' (`{"/v1/embeddings": "/v4/embeddings"}`). The path is part of a request\'s identity.'
        ),
    )
    deadline: RuntimeParameter[PositiveFloat | str] | None = Field(
        default=None,
        description=(
            'Time at which jobs are cancelled: seconds or a duration (`"90m"`, `"4h"`, `"1h30m"`) after their requests'
            ' were planned, the next time that the local clock shows (`"06:00"`), or an ISO 8601 date-time'
            ' (`"2027-01-31T06:00+01:00"`). Partial results are kept; the other requests go to the synchronous'
            " endpoint, at full price. `None`: no deadline."
        ),
    )
    sync_below: RuntimeParameter[NonNegativeInt] = Field(
        default=0,
        description=(
            "Number of requests below which a round goes to the synchronous endpoint, at full price and without a job."
            " With 0 no round does. A dry run of the pipeline always does."
        ),
    )
    lane: RuntimeParameter[Literal["batch", "sync"]] = Field(
        default="batch",
        description=(
            "Way of the requests to the server. `batch`: jobs of the Batch API, at half price. `sync`: the synchronous"
            " endpoint at full price, for servers without a Batch API, such as vLLM."
        ),
    )
    max_concurrency: RuntimeParameter[PositiveInt] = Field(
        default=100,
        description=(
            "Maximum number of synchronous requests in flight. A run begins with 16, doubles the number while the"
            " server accepts every request, and halves the number when the server refuses one (429)."
        ),
    )
    preflight: RuntimeParameter[bool] = Field(
        default=False,
        description=(
            "Send one request of each model to the synchronous endpoint, at full price, before the others are"
            " submitted: a wrong model or parameter, or a `max_new_tokens` that reasoning spends, is reported within"
            " seconds. The answer is used."
        ),
    )
    add_failures: RuntimeParameter[bool] = Field(
        default=False,
        description=(
            "Add a column `failure_<step name>` with the reason of each row without an answer or with a cut answer: a"
            " dictionary with `message`, `status_code`, `code` and `custom_id`; `None` in rows with a whole answer."
        ),
    )
    stop_without_answers: RuntimeParameter[bool] = Field(
        default=True,
        description=(
            "End the run with a `NoGenerationsError` before another Task is billed for rows of `None`: ten or more rows"
            " of the Task have ended, and none of them has a generation; or ten or more rows arrive, and each lacks an"
            " answer of an earlier step. With `False` a warning is logged."
        ),
    )
    on_end: RuntimeParameter[str] | None = Field(
        default=None,
        description=(
            "Command or URL that receives a notice when the requests of a step or script have ended, or its run has"
            " failed: JSON with the scope, the numbers of requests, the cost and the error; never a key. A command runs"
            " in the shell and reads the JSON from its standard input. A URL is not written into a dump of the"
            " pipeline."
        ),
    )
    budget: RuntimeParameter[NonNegativeFloat] | None = Field(
        default=None,
        description=(
            "Maximum cost of one run of a step, in US dollars. Before a submission the cost is estimated from list"
            " prices, with answers as long as `max_new_tokens` allows; above the rest of the budget nothing is"
            " submitted, and a `BudgetError` ends the run. `None`: no limit. Needs the extra `prices`, or `prices=`."
        ),
    )
    prices: RuntimeParameter[_Values | str] | None = Field(
        default=None,
        description=(
            "Your own prices, for `budget`, `estimate` and `costs`: a dictionary by model, in US dollars for a million"
            ' tokens in a batch (`{"my-model": {"input": 0.4, "cached": 0.04, "output": 3.2}}`), the path of a JSON'
            " file with this dictionary, or a provider of the price list whose prices the server bills (`openai`)."
            " `None`: `$DISTILABEL_OPENAI_BATCH_PRICES`, else list prices."
        ),
    )
    ledger_dir: RuntimeParameter[str] | None = Field(
        default=None,
        description=(
            "Directory of the ledger, the file that records jobs and answers. `None`: `$DISTILABEL_OPENAI_BATCH_DIR`,"
            " else `~/.cache/distilabel/openai_batch`."
        ),
    )
    compress_ledger: RuntimeParameter[bool] = Field(
        default=False,
        description=(
            "Whether the ledger compresses new answers of batches, which takes some microseconds per answer. Answers"
            " of a batch with fewer than 100 requests are not compressed. Runs and commands read both kinds of answers."
        ),
    )

    @field_validator(
        "completion_window",
        "max_requests_per_job",
        "max_bytes_per_job",
        "max_jobs",
        "max_attempts",
        "min_poll_interval",
        "max_poll_interval",
        "wait",
        "reuse_answers",
        "on_unmatched",
        "delete_files",
        "compress_ledger",
        "sync_below",
        "lane",
        "max_concurrency",
        "preflight",
        "add_failures",
        "stop_without_answers",
        mode="before",
    )
    @classmethod
    def _refuse_none(cls, value: object) -> object:
        """Refuse `None`, which distilabel's `RuntimeParameter` allows everywhere."""
        if value is None:
            raise ValueError("the value cannot be None")
        return value

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_deadline(cls, value: object) -> object:
        """Refuse a deadline that cannot be read, and store a date-time as a text, which YAML and JSON can hold."""
        return clean_deadline(value)

    @field_validator("endpoint_path")
    @classmethod
    def _check_path(cls, value: dict[str, str] | str | None) -> dict[str, str] | str | None:
        """Refuse paths that are no paths, such as a whole address."""
        for path in [value] if isinstance(value, str) else (value or {}).values():
            if not path.startswith("/"):
                raise ValueError(f"the path {path!r} does not begin with a slash, as `/v4/chat/completions` does")
        return value

    @field_validator("prices")
    @classmethod
    def _check_prices(cls, value: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
        """Refuse prices that cannot be read; a file may appear later, and is read when the step is loaded."""
        if isinstance(value, dict):
            load_own_prices(value)
        return value

    @field_validator("batch_metadata", "upload_extra", "batch_extra")
    @classmethod
    def _check_extra_fields(cls, value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        """Refuse names that the API or this package uses, and metadata that the API refuses."""
        check_extra_fields(str(info.field_name), value)
        return value

    # Some fields are those of derived classes.
    @field_validator(*BOUNDS, check_fields=False)
    @classmethod
    def _check_number(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        """Refuse numbers with which a run would never end, in the constructor and among runtime parameters."""
        return value if isinstance(value, str) else check_number(str(info.field_name), value)

    @field_serializer("base_url")
    def _dump_base_url(self, value: str | None) -> str | None:
        """Write the address without its secrets: distilabel uploads the dump with a dataset."""
        return value and public_address(value)

    @field_serializer("default_headers")
    def _dump_headers(self, value: dict[str, str] | None) -> dict[str, str] | None:
        """Write the headers without the secret ones, as distilabel leaves out the API key."""
        return value and public_headers(value)

    @field_serializer("on_end")
    def _dump_on_end(self, value: str | None) -> str | None:
        """Leave out a URL: its path is a secret at many services, and distilabel uploads the dump with a dataset."""
        return None if value and is_url(value) else value

    @field_serializer("upload_extra", "batch_extra")
    def _dump_extra_fields(self, value: dict[str, Any] | None) -> Any:
        """Write the fields without the secret ones, at any depth."""
        return value and public_fields(value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the fields for `repr`, which tracebacks show, without the secrets of the address and the headers."""
        for name, value in super().__repr_args__():
            if name == "base_url" and isinstance(value, str):
                value = public_address(value)
            elif name == "default_headers" and isinstance(value, dict):
                value = public_headers(value)
            elif name == "on_end" and isinstance(value, str) and is_url(value):
                value = "***"
            elif name in ("upload_extra", "batch_extra"):
                value = public_fields(value)
            yield name, value

    def set_runtime_parameters(self, runtime_parameters: dict[str, Any]) -> None:
        """Set runtime parameters, and log a warning for each unknown name.

        distilabel ignores unknown names silently: with a misspelt `budget` a run would have none.

        Args:
            runtime_parameters: values by name.
        """
        names = self.runtime_parameters_names
        for name in [name for name in runtime_parameters if name not in names]:
            suggestion = did_you_mean(name, names)
            _logger.warning(
                f"⚠️ {type(self).__name__} has no runtime parameter `{name}`: the value is ignored{suggestion}"
            )
        super().set_runtime_parameters(runtime_parameters)
