"""What can be made to go wrong: with a call, with a line of the results, with a batch."""

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
    "embeddings",
]


class Fault(BaseModel):
    """Makes the next calls go wrong.

    Attributes:
        call: the call concerned, or `any`.
        kind: `status` answers with an error and has no effect; `cut_before` closes the connection before the call has
            had its effect, `cut_after` when it has; `truncate` sends half of the body and closes; `hang` never answers.
        status: for `status`: the HTTP status.
        headers: for `status`: headers of the reply.
        body: for `status`: the body; `None` for an error in OpenAI's shape, a string is sent as an HTML page.
        times: how many calls go wrong, -1 for all from now on.
        skip: how many calls are let through first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    call: CallName | Literal["any"]
    kind: Literal["status", "cut_before", "cut_after", "truncate", "hang"]
    status: int = Field(default=500, ge=200, le=599)
    headers: dict[str, str] = {}
    body: JsonValue = None
    times: int = Field(default=1, ge=-1)
    skip: int = Field(default=0, ge=0)


class ResultFault(BaseModel):
    """Makes lines of the results of batches go wrong.

    Attributes:
        kind: what is wrong with the line:

            - `lose`: it is left out.
            - `double`: it stands there twice.
            - `malform`: it is cut in the middle.
            - `unknown`: before it stands a line with a `custom_id` that nobody asked for.
            - `blank`: before it stands an empty line.
            - `string_body`: its body is a JSON string, as llama-stack writes it.
            - `null_response`: it has neither a response nor an error.
            - `null_body`: its response has no body.
            - `status_zero`: its `status_code` is 0.
            - `server_error`: it has an error and no response, as aibrix writes it.
            - `bare_error`: its error has no `code`, and there is no key `response`, as llama-stack writes it.
            - `refuse`: the model refuses to answer, in every choice.
            - `ramble`: the model says something in words, whatever it was to say.
            - `to_error_file`, `to_output_file`: it stands in that file, wherever it belongs.

        contains: a substring of the request's body, serialised as JSON with sorted keys and without spaces; "" for any.
        times: how many lines go wrong, -1 for all from now on.
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
        "to_error_file",
        "to_output_file",
    ]
    contains: str = ""
    times: int = Field(default=1, ge=-1)


class BatchFault(BaseModel):
    """Makes the next batches that are created go wrong. A batch takes one of each kind.

    Attributes:
        kind: what the batch does:

            - `never_finish`: stays `in_progress` with `value` requests answered (half by default), past expiry too.
            - `status`: shows `value` as its status for its first `looks` looks, -1 for ever.
            - `upper_case`: shows its status in capitals.
            - `fail`: fails with the error `value` (`code`, `message`, `param`, `line`); with `done` in it, it fails
              once so many requests were answered, and their results exist.
            - `expire`, `cancel`: ends expired or cancelled at once, with `value` requests answered (half by default).
            - `no_files`: shows no output and no error file.
            - `lost_files`: names files that do not exist.
            - `empty_file_ids`: has `""` where a file id would be null.
            - `empty_files`: has files without a byte where a file id would be null.
            - `null_counts`: shows no `request_counts`.
            - `bare`: shows only what every compatible server shows: no `usage`, `model`, `errors`, `expires_at`, and
              none of the moments but `created_at`.

        value: see above.
        looks: see above.
        times: how many batches go wrong, -1 for all from now on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal[
        "never_finish",
        "status",
        "upper_case",
        "fail",
        "expire",
        "cancel",
        "no_files",
        "lost_files",
        "empty_file_ids",
        "empty_files",
        "null_counts",
        "bare",
    ]
    value: JsonValue = None
    looks: int = Field(default=1, ge=-1)
    times: int = Field(default=1, ge=-1)


AnyFault: TypeAlias = Fault | ResultFault | BatchFault
