"""Faults that a test can order: for calls, for result lines, for batches."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

CallName = Literal[
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "batches.create",
    "batches.list",
    "batches.retrieve",
    "batches.cancel",
    "chat.completions",
    "completions",
    "responses",
    "moderations",
    "images.generations",
    "embeddings",
]


class Fault(BaseModel):
    """Fault of the next calls.

    The kinds of faults:

    - `status`: reply with an error; the call has no effect.
    - `replace`: reply with `status` and `body` after the call has had its effect.
    - `cut_before`: close the connection before the call has had its effect.
    - `cut_after`: close the connection after the call has had its effect.
    - `truncate`: send half of the reply's body, then close the connection.
    - `hang`: never reply.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    call: CallName | Literal["any"] = Field(description="Name of the call, or `any` for every call.")
    kind: Literal["status", "replace", "cut_before", "cut_after", "truncate", "hang"] = Field(
        description="Kind of fault, see the list above."
    )
    status: int = Field(
        default=500, ge=200, le=599, description="With the kinds `status` and `replace`: HTTP status of the reply."
    )
    headers: dict[str, str] = Field(
        default={}, description="With the kinds `status` and `replace`: extra headers of the reply."
    )
    body: JsonValue = Field(
        default=None,
        description="With the kinds `status` and `replace`: body of the reply. `None` sends an error in OpenAI's "
        "shape, a string an HTML page, any other value JSON.",
    )
    times: int = Field(default=1, ge=-1, description="Number of calls that fail; -1 for every call from now on.")
    skip: int = Field(default=0, ge=0, description="Number of calls that pass before the first one fails.")


class ResultFault(BaseModel):
    """Fault of lines in the result files of batches.

    The kinds of faults:

    - `lose`: leave the line out.
    - `double`: write the line twice.
    - `malform`: cut the line in the middle.
    - `unknown`: insert, before the line, a line with a `custom_id` that no request has.
    - `blank`: insert, before the line, an empty line.
    - `string_body`: write the response's body as a JSON string, as llama-stack does.
    - `null_response`: write neither a response nor an error.
    - `null_body`: write a response without a body.
    - `status_zero`: write 0 as `status_code`.
    - `server_error`: write an error and no response, as aibrix does.
    - `bare_error`: write an error without `code` and without the key `response`, as llama-stack does.
    - `refuse`: let the model refuse to answer, in every choice.
    - `ramble`: let the model answer in prose, whatever format the request demands.
    - `filter`: let a content filter withhold every choice.
    - `spend_limit`: let the model spend the token limit before its text begins, in every choice.
    - `spend_limit_once`: let the model spend the token limit before its text begins, in the first choice.
    - `no_choices`: answer without a choice, as Gemini and Azure's content filter do; the answer is billed.
    - `one_choice`: answer with one choice, as servers do that ignore `n`.
    - `to_error_file`, `to_output_file`: write the line to this file, whichever file is the right one.

    The kinds from `refuse` to `one_choice` change the answers of synchronous calls too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal[
        "lose",
        "double",
        "malform",
        "unknown",
        "blank",
        "string_body",
        "null_response",
        "null_body",
        "status_zero",
        "server_error",
        "bare_error",
        "refuse",
        "ramble",
        "filter",
        "spend_limit",
        "spend_limit_once",
        "no_choices",
        "one_choice",
        "to_error_file",
        "to_output_file",
    ] = Field(description="Kind of fault, see the list above.")
    contains: str = Field(
        default="",
        description='Substring of the request\'s body, serialised as JSON with sorted keys and without spaces; "" '
        "matches every request.",
    )
    times: int = Field(default=1, ge=-1, description="Number of lines with the fault; -1 for every line from now on.")


class BatchFault(BaseModel):
    """Fault of the next batches that are created. A batch takes at most one fault of each kind.

    The kinds of faults:

    - `never_finish`: stay `in_progress` with `value` requests answered (half by default), even past the expiry.
    - `status`: show `value` as the status for the first `looks` replies; -1 for every reply.
    - `upper_case`: show the status in capitals.
    - `fail`: fail with the error `value` (keys `code`, `message`, `param`, `line`). With the key `done`, fail after
      that number of requests has been answered, and keep their results.
    - `no_errors`: show no `errors`, as a failed batch of which the server gives no reason.
    - `expire`, `cancel`: end as expired or cancelled right after validation, with `value` requests answered (half by
      default).
    - `no_files`: show neither an output nor an error file.
    - `late_files`: show the final status and counts, but no file ids, in the first `looks` replies after the end.
    - `lost_files`: show ids of files that do not exist.
    - `empty_file_ids`: show `""` instead of a null file id.
    - `empty_files`: show an empty file instead of a null file id.
    - `null_counts`: show no `request_counts`.
    - `bare`: show only the fields that every compatible server shows: no `usage`, `model`, `errors`, `expires_at`, and
      no timestamp but `created_at`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal[
        "never_finish",
        "status",
        "upper_case",
        "fail",
        "no_errors",
        "expire",
        "cancel",
        "no_files",
        "late_files",
        "lost_files",
        "empty_file_ids",
        "empty_files",
        "null_counts",
        "bare",
    ] = Field(description="Kind of fault, see the list above.")
    value: JsonValue = Field(default=None, description="Parameter of the kind, see the list above.")
    looks: int = Field(
        default=1,
        ge=-1,
        description=(
            "With kind `status`: number of replies, the one to the creation included, that show `value`. With kind"
            " `late_files`: number of replies after the end of the batch without file ids."
        ),
    )
    times: int = Field(
        default=1, ge=-1, description="Number of batches with the fault; -1 for every batch from now on."
    )


AnyFault: TypeAlias = Fault | ResultFault | BatchFault
