"""The exceptions, and whose fault an error of the API is: one request's, the whole run's, or nobody's for long.

OpenAIBatchError
└── RunError                      the whole run is concerned; what was answered is kept
    ├── AuthenticationError       401 or 403: the key, or what it may do
    ├── QuotaError                `insufficient_quota`: the account has run out of money
    ├── ConnectionFailedError     the server could not be reached, or stopped answering for hours
    ├── BatchFailedError          a batch did not pass the server's validation
    ├── RequestsFailedError       every request failed, all in the same way
    ├── BudgetError               what is to be bought may cost more than `budget` allows
    ├── MissingSettingError       nothing says with which key, or at which endpoint, to ask
    ├── InvalidParametersError    generation parameters that `OpenAILLM` does not take
    └── LedgerError               the ledger cannot be read or written
"""

from __future__ import annotations

# One request or call, tried again later, may well succeed. 0 is what some servers write for a request they lost.
# https://platform.openai.com/docs/guides/error-codes/api-errors
_PASSING_STATUS_CODES = frozenset({0, 408, 409, 425, 429})

_NOT_IMPLEMENTED = 501

# Codes that say the same without a status code: requests that never got to a model, and results that got lost.
_PASSING_CODES = frozenset(
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

# Where no status code contradicts them: as the type of a 404 the first says nothing, and llama-stack says the second of
# whatever failed.
_PASSING_WITHOUT_STATUS = frozenset({"server_error", "request_failed"})

# A 429 that no waiting mends. https://platform.openai.com/docs/guides/error-codes/api-errors
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class OpenAIBatchError(Exception):
    """Root of what this package raises.

    Every one is built from its text alone, and so survives the way from a step's process to the pipeline's.
    """


class RunError(OpenAIBatchError):
    """Concerns the whole run: it is raised at once, by `generate` and by `pipeline.run` alike.

    Attributes:
        status_code: the HTTP status code of the API's answer, if there was one.
        code: the API's own error code, if it gave one (`"insufficient_quota"`).
        batch_id: the batch that it happened to, if one did.
        did_nothing: whether it is certain that the server did nothing of what it was asked: it refused, or was never
            reached.
    """

    did_nothing = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        batch_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.batch_id = batch_id


class AuthenticationError(RunError):
    """The server refused the key, or refuses this key the Batch API."""


class QuotaError(RunError):
    """The account's money or quota is used up."""


class ConnectionFailedError(RunError):
    """The server was not reached, or did not answer sensibly for longer than is worth waiting."""


class BatchFailedError(RunError):
    """The server did not accept a batch: its status is `failed`."""


class RequestsFailedError(RunError):
    """Every request of the run failed in the same way, one that asking again does not mend."""


class BudgetError(RunError):
    """What is to be bought may cost more than `budget` allows, or nobody knows what it costs. It was not bought."""


class MissingSettingError(RunError, ValueError):
    """A server cannot be asked without an API key, nor Azure's without an endpoint and a version. Nothing was sent."""


class InvalidParametersError(RunError, ValueError):
    """`generate` was given parameters that `OpenAILLM` does not take. Nothing was sent."""


class LedgerError(RunError):
    """The ledger is damaged, locked, read-only, full, or no ledger. It was not overwritten."""


def is_transient(status_code: int | None, code: str | None) -> bool:
    """Whether the same request, asked again later, may succeed.

    Args:
        status_code: HTTP status code, `None` where the request was never answered.
        code: the API's error code.

    Returns:
        `True` for time-outs, conflicts, rate limits, server errors and requests that were never reached.
    """
    if is_out_of_quota(code):
        return False
    if code in _PASSING_CODES or status_code in _PASSING_STATUS_CODES:
        return True
    if status_code is None or status_code < 400:
        return code in _PASSING_WITHOUT_STATUS
    return status_code >= 500 and status_code != _NOT_IMPLEMENTED


def is_out_of_quota(code: str | None) -> bool:
    """Whether the API's error code says that the account has run out of money or quota."""
    return code in _QUOTA_CODES


def is_over_token_limit(code: str | None) -> bool:
    """Whether the API's error code says that too many tokens wait for the model: jobs that end make room for others."""
    return code == "token_limit_exceeded"


def is_key_rejected(status_code: int | None) -> bool:
    """Whether a status code says that the key is wrong, or may not do this."""
    return status_code in (401, 403)
