"""The package's exceptions, and the rules that tell transient failures from lasting ones.

OpenAIBatchError
└── RunError                      concerns the whole run; answers received so far are kept
    ├── AuthenticationError       401 or 403: the server rejects the key, or the key lacks a permission
    ├── QuotaError                `insufficient_quota`: the account has run out of money
    ├── StorageFullError          the server's file storage is full
    ├── ConnectionFailedError     the server could not be reached, or failed for hours
    ├── BatchFailedError          a batch failed the server's validation
    ├── RequestsFailedError       every request failed in the same way
    ├── UnmatchedAnswersError     earlier answers match no request, and `on_unmatched` is `fail`
    ├── NoGenerationsError        no row of a Task has a generation, and another Task follows
    ├── BudgetError               the next requests may cost more than `budget` allows
    ├── MissingSettingError       the API key, or Azure's endpoint or version, is not set
    ├── InvalidSettingError       the API key, a header or the base URL cannot be sent; or a wrong number or argument
    ├── InvalidParametersError    generation parameters that `OpenAILLM` does not take
    ├── LedgerError               the ledger cannot be read or written
    └── InternalError             an unexpected exception of the engine: no memory, thread or disk space, or a bug
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from distilabel_openai_batch.text import printable

# Status codes of requests that may succeed later. Some servers write 0 for a request that they lost.
# https://platform.openai.com/docs/guides/error-codes/api-errors
_TRANSIENT_STATUS_CODES = frozenset({0, 408, 409, 425, 429})

_NOT_IMPLEMENTED = 501

# Error codes of requests that no model has seen, and of results that got lost; the status code does not matter.
_TRANSIENT_CODES = frozenset(
    {
        "batch_cancelled",
        "batch_expired",
        "batch_failed",
        "inference_failed",
        "malformed_result",
        "missing_result",
        "request_timeout",
    }
)

# Error codes that count as transient only without a contrary status code: a 404 may have the type `server_error`, and
# llama-stack gives `request_failed` to every failure.
_TRANSIENT_CODES_WITHOUT_STATUS = frozenset(
    {"internal_error", "internal_server_error", "rate_limit_exceeded", "server_error", "request_failed"}
)

# Messages of servers that failed and give no code.
_SERVER_FAILURE = re.compile(r"\b(internal|server)[ _]error\b|\binternal server error\b|\bserver had an error\b", re.I)

# Refusals of single requests that pass although their status code is 400: the code, `None` for any code, and a pattern
# of the message. The same request is answered at a later attempt, say the reports.
_TRANSIENT_REFUSALS = (
    # The server waited too long for an image's host: `invalid_image_url`, `invalid_value`.
    # https://github.com/danny-avila/LibreChat/issues/5101, https://github.com/vercel/ai/issues/8857
    (None, re.compile(r"\btime(d )?-?out (while|when) downloading", re.IGNORECASE)),
    # DashScope's words for the same: `InvalidParameter.DataInspection`, `invalid_parameter_error`.
    # https://github.com/QwenLM/Qwen-VL/issues/431, https://github.com/labring/FastGPT/issues/4393
    (None, re.compile(r"\bdownload\b.* timed out", re.IGNORECASE)),
    # The body of each request here is valid JSON. https://github.com/kaiko-ai/eva/pull/1011
    (None, re.compile(r"could not parse the json body of your request", re.IGNORECASE)),
    # Groq: the model's answer was no JSON in spite of `response_format`. https://github.com/drnic/groq-ruby/issues/12
    ("json_validate_failed", re.compile("")),
)

# Error codes of a 429 that no waiting fixes. https://platform.openai.com/docs/guides/error-codes/api-errors
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})

# HTTP's "Insufficient Storage". https://www.rfc-editor.org/rfc/rfc4918#section-11.5
_INSUFFICIENT_STORAGE = 507

# Messages of a refused upload that say that the files of the account, and not this file, exceed a limit.
_STORAGE_FULL = re.compile(
    "|".join(
        (
            # OpenAI: "You have exceeded your file storage quota. Organizations are limited to 100 GB of files."
            # Projects are limited to 2.5 TB. https://help.openai.com/en/articles/8724843-file-storage-quota-errors-for-api-users
            r"\bstorage (quota|limit|space|capacity)\b",
            r"\blimited to [\d.,]+ ?[kmgt]i?b of files\b",
            # Azure: "The quota for files without expiry is reached. The maximum is 500."
            # https://github.com/Azure/azure-sdk-for-java/issues/47401
            r"\bquota for files\b",
            # Gemini: "Quota exceeded for metric: generativelanguage.googleapis.com/file_storage_bytes".
            # https://github.com/googleapis/python-genai/issues/1172
            r"\bfile_storage_bytes\b",
            # Gemini: "Total file count is 10151, exceeding limit of 10000".
            # https://discuss.ai.google.dev/t/gemini-api-total-file-count-exceeding-10000-error/177198
            r"\bfile (count|quota)\b",
            r"\b(number|count) of (\w+ )?files\b",
            # A server whose own disk is full: the text of ENOSPC.
            r"\bno space left on device\b",
        )
    ),
    re.IGNORECASE,
)

# Azure's code. https://github.com/Azure/azure-sdk-for-java/issues/47401
_STORAGE_CODE = "quotaExceeded"
# Azure uses similar codes for its rates: "Out of call volume quota." → the code counts without a word about calls.
_OTHER_QUOTA = re.compile(r"\b(call|calls|request|requests|token|tokens|rate|billing|plan)\b", re.IGNORECASE)


class OpenAIBatchError(Exception):
    """Root of the package's exceptions.

    Each exception can be created from its text alone, and can be pickled from a step's process to the pipeline's.

    Args:
        message: the text, which may quote a server: `printable` escapes its control characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class RunError(OpenAIBatchError):
    """Error of a whole run, raised at once by `generate` and by `pipeline.run`.

    Attributes:
        status_code: the HTTP status code of the API's reply, `None` without a reply.
        code: the API's error code (`"insufficient_quota"`), `None` if the API gave none.
        param: the parameter that the API refused, `None` if the API named none.
        batch_id: the batch that the error concerns, `None` if it concerns no batch.
        did_nothing: whether the server certainly did nothing: it refused the call, or was never reached.
    """

    did_nothing = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        param: str | None = None,
        batch_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.param = param
        self.batch_id = batch_id


class AuthenticationError(RunError):
    """Rejection of the key by the server, or of the key's use of the Batch API."""


class QuotaError(RunError):
    """Exhaustion of the account's money or quota."""


class StorageFullError(RunError):
    """Refusal of an upload, because the server's file storage is full."""


class ConnectionFailedError(RunError):
    """Failure to reach the server, or to get a valid reply, within the time of the retries."""


class BatchFailedError(RunError):
    """Rejection of a batch by the server's validation: the batch's status is `failed`."""


class RequestsFailedError(RunError):
    """Failure of every request of the run in the same way, which a retry does not fix."""


class UnmatchedAnswersError(RunError):
    """Refusal to submit requests again whose earlier answers no longer match, or belong to another scope."""


class NoGenerationsError(RunError):
    """Absence of every generation of a Task, before the next Task is billed for rows of `None`."""


class BudgetError(RunError):
    """Refusal to submit requests that may cost more than `budget` allows, or whose price is unknown."""


class MissingSettingError(RunError, ValueError):
    """Absence of the API key, or of Azure's endpoint or version. Nothing was sent."""


class InvalidSettingError(RunError, ValueError):
    """API key, header, base URL, number or argument that cannot be used. Nothing was sent."""


class InvalidParametersError(RunError, ValueError):
    """Parameters for `generate` that `OpenAILLM` does not take. Nothing was sent."""


class LedgerError(RunError):
    """Ledger that is damaged, locked, read-only, full, or no ledger at all. The file was not overwritten."""


class InternalError(RunError):
    """Unexpected exception of the engine, which `__cause__` holds: no memory, thread or disk space, or a bug."""


_INTERNAL_ADVICE = "Answers received so far are in the ledger, and jobs stay at the server: run again to continue."


def as_run_error(error: BaseException) -> RunError:
    """Return an exception as an error of the run: a `RunError` unchanged, any other one as an `InternalError`.

    Args:
        error: the exception; of a group of exceptions, the first `RunError` counts, or else the first exception.

    Returns:
        The `RunError`, or an `InternalError` whose `__cause__` is the exception.
    """
    parts = list(_single_errors(error))
    error = next((part for part in parts if isinstance(part, RunError)), parts[0])
    if isinstance(error, RunError):
        return error
    if isinstance(error, OSError):
        reason = f"A file of the run could not be written or read: {error}"
    else:
        reason = f"The run met an unexpected {type(error).__name__}: {str(error) or 'no message'}"
    internal = InternalError(f"{reason.rstrip('.')}. {_INTERNAL_ADVICE}")
    internal.__cause__ = error
    return internal


def _single_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, nested ones too; any other exception is its own only part."""
    # Python 3.10 has no `BaseExceptionGroup`; anyio raises the group of the package `exceptiongroup` there.
    parts = getattr(error, "exceptions", None)
    if not isinstance(parts, tuple):
        yield error
        return
    for part in parts:
        yield from _single_errors(part)


def is_transient(status_code: int | None, code: str | None, message: str = "") -> bool:
    """Return whether the same request may succeed later.

    Args:
        status_code: the HTTP status code, `None` if the request was never answered.
        code: the API's error code.
        message: the API's message; only a request of a model has messages that show a transient failure.

    Returns:
        `True` for time-outs, conflicts, rate limits, server errors and requests that no model has seen.
    """
    if is_out_of_quota(code):
        return False
    if code in _TRANSIENT_CODES or status_code in _TRANSIENT_STATUS_CODES:
        return True
    if status_code is None or status_code < 400:
        return code in _TRANSIENT_CODES_WITHOUT_STATUS
    if status_code == 400 and message and _is_transient_refusal(code, message):
        return True
    return status_code >= 500 and status_code != _NOT_IMPLEMENTED


def is_server_failure(code: str | None, message: str) -> bool:
    """Return whether the reason of a failed batch is a failure of the server, and no fault of the input file."""
    return is_transient(None, code) if code else bool(_SERVER_FAILURE.search(message))


def _is_transient_refusal(code: str | None, message: str) -> bool:
    return any(known_code in (None, code) and pattern.search(message) for known_code, pattern in _TRANSIENT_REFUSALS)


def is_out_of_quota(code: str | None) -> bool:
    """Return whether the API's error code means that the account has run out of money or quota."""
    return code in _QUOTA_CODES


def is_storage_full(status_code: int, code: str | None, message: str) -> bool:
    """Return whether the refusal of an upload means that the server's file storage is full, and deletions help.

    Args:
        status_code: the HTTP status code of the refusal.
        code: the API's error code.
        message: the API's message.
    """
    if is_out_of_quota(code):
        return False
    if status_code == _INSUFFICIENT_STORAGE or _STORAGE_FULL.search(message):
        return True
    return code == _STORAGE_CODE and not _OTHER_QUOTA.search(message)


def is_over_token_limit(code: str | None) -> bool:
    """Return whether the API's error code means that too many tokens are enqueued; ending jobs free capacity."""
    return code == "token_limit_exceeded"


def is_key_rejected(status_code: int | None) -> bool:
    """Return whether the HTTP status code means that the key is wrong or lacks a permission."""
    return status_code in (401, 403)
