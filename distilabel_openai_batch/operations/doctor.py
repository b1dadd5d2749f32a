"""Looks for what keeps a pipeline from running, and says how to mend it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from distilabel_openai_batch.errors import (
    AuthenticationError,
    ConnectionFailedError,
    LedgerError,
    OpenAIBatchError,
    QuotaError,
    RunError,
)
from distilabel_openai_batch.ledger.files import directory as directory_of
from distilabel_openai_batch.ledger.reader import Inventory
from distilabel_openai_batch.operations.server import AT_ONCE, Access
from distilabel_openai_batch.pricing import prices

# What is told of them helps whoever reads a report of a problem.
_PACKAGES = ("distilabel-openai-batch", "distilabel", "openai")

# hooks/ replaces private functions of this release.
_DISTILABEL = "1.5."

# What can be installed besides, and what it is for.
_EXTRAS = {
    "prices": "what answers cost, and `budget`",
    "ray": "pipelines on Ray",
    "report": "`report`",
    "sandbox": "`serve`",
}

_OF_EXTRA = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")

_LOCAL = re.compile(r"localhost|.*\.localhost|127\..*|::1|0\.0\.0\.0")

_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        subject: what was looked at.
        says: how it is.
        mend: what to do about it; empty where it is well.
    """

    subject: str
    says: str
    mend: str = ""


def versions() -> Finding:
    """What is installed."""
    try:
        found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("versions", f"{error.name} is not installed.", "pip install distilabel-openai-batch")
    says = ", ".join(f"{package} {version}" for package, version in found.items())
    says += f", Python {platform.python_version()}"
    if not found["distilabel"].startswith(_DISTILABEL):
        return Finding("versions", says, "Only distilabel 1.5 is known to work: pip install 'distilabel>=1.5.3,<1.6'")
    return Finding("versions", says)


def extras() -> Finding:
    """Which extras are installed, and how the others are. A pipeline runs without any."""
    missing: dict[str, None] = {}
    for requirement in importlib.metadata.requires("distilabel-openai-batch") or ():
        if (match := _OF_EXTRA.match(requirement)) and not _is_installed(match[1]):
            missing[match[2]] = None
    installed = ", ".join(extra for extra in _EXTRAS if extra not in missing) or "none"
    lines = [
        f"\n    {extra}, for {use}: pip install 'distilabel-openai-batch[{extra}]'"
        for extra, use in _EXTRAS.items()
        if extra in missing
    ]
    return Finding("extras", f"{installed}{'; not installed:' if lines else ''}{''.join(lines)}")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def ledger(chosen: Path | None) -> Finding:
    """Whether the ledger can be read and written."""
    try:
        directory = directory_of(chosen)
    except LedgerError as error:
        return Finding("ledger", str(error), "Set one of these, or HOME.")
    inventory = Inventory(directory)
    choose = "Make the directory writable, or choose another one: --ledger-dir here, `ledger_dir` of the LLM."
    existing = next((path for path in (inventory.path, *inventory.path.parents) if os.path.exists(path)), Path("/"))
    if existing != inventory.path:
        if not os.access(existing, os.W_OK | os.X_OK):
            return Finding("ledger", f"There is none in {directory}, and {existing} is not writable.", choose)
        return Finding("ledger", f"There is none in {directory} yet; the first run makes it.")
    try:
        scopes, jobs = inventory.scopes(), inventory.jobs()
    except LedgerError as error:
        return Finding("ledger", str(error), "Move the file away, or choose another directory.")
    interrupted = sum(job.is_interrupted for job in jobs)
    says = (
        f"{inventory.path}; scopes: {len(scopes):,}, jobs: {len(jobs):,}, of them open:"
        f" {sum(job.is_open for job in jobs):,}{f', interrupted: {interrupted:,}' if interrupted else ''}, answers:"
        f" {sum(scope.answered for scope in scopes):,}."
    )
    if not (os.access(inventory.path, os.W_OK) and os.access(directory, os.W_OK | os.X_OK)):
        return Finding("ledger", f"{says} It cannot be written.", choose)
    return Finding("ledger", says)


def base_url(address: str) -> Finding:
    """Whether the server's address can be one."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # Its brackets do not close, or its port is no number.
        is_address = False
    if not is_address:
        return Finding("base URL", f"{address} is no address.", "It looks like https://api.openai.com/v1")
    return Finding("base URL", address)


def _has_no_version(address: str) -> bool:
    return not re.search(r"/v\d|/openai", urlsplit(address).path)


def _is_local(address: str) -> bool:
    return _LOCAL.fullmatch(urlsplit(address).hostname or "") is not None


def key(address: str) -> tuple[Finding, Access | None]:
    """Whether there is a key, which is never shown."""
    try:
        access = Access.to(address)
    except OpenAIBatchError as error:
        return Finding("key", str(error), _where_keys_are(address)), None
    raw = os.environ[access.key_variable]
    if raw != access.key or access.key[0] in "\"'" or not access.key.isascii() or any(map(str.isspace, access.key)):
        says = f"{access.key_variable} has spaces, quotes or foreign characters in it or around it."
        return Finding("key", says, "Set it anew, to the key and nothing else."), access
    return Finding("key", f"{access.key_variable} is set."), access


def _where_keys_are(address: str) -> str:
    if _is_local(address):
        return "A server on this machine may not look at it, but one has to be sent: export OPENAI_API_KEY=anything"
    if prices.provider(address) == "openai":
        return "Keys are made at https://platform.openai.com/api-keys"
    return "Whoever runs the server has one for you."


async def server(access: Access) -> list[Finding]:
    """Whether the server takes the key, by one small call of each kind that costs nothing."""
    async with access.open(AT_ONCE, _SILENT) as api:
        try:
            lists = await api.lists_batches()
        except RunError as error:
            return [Finding("batches", str(error), _mend(error, access.base_url))]
        batches = Finding("batches", "The server lists its batches.")
        if not lists:
            batches = Finding(
                "batches",
                "The server does not list its batches. If it is the right one: it works, but a batch whose creation's"
                " reply is lost cannot be found again.",
            )
        try:
            await api.list_file()
        except RunError as error:
            if error.status_code == 404 and not lists:
                says = f"{access.base_url} has neither batches nor files: it answers 404."
                return [Finding("batches", says, _mend(error, access.base_url))]
            return [batches, Finding("files", str(error), _mend(error, access.base_url))]
        return [batches, Finding("files", "The server lists its files.")]


def _mend(error: RunError, address: str) -> str:
    with_version = f"{address.rstrip('/')}/v1"
    match error:
        case RunError(status_code=404) if _has_no_version(address):
            return f"The base URL lacks its version: set it to {with_version}"
        case AuthenticationError(status_code=403):
            return "This key may not do that: give it the rights to read and write batches and files."
        case AuthenticationError():
            return "The server does not take this key: make a new one, or set the base URL of the server it is for."
        case QuotaError():
            return "The account has run out of money: add credit."
        case ConnectionFailedError():
            return "Is the base URL right, the server up, and the network or proxy open?"
        case _:
            return "Is the base URL that of a server with a Batch API?"


async def diagnose(chosen: Path | None, address: str) -> list[Finding]:
    """All that can be found out.

    Args:
        chosen: the ledger's directory, as the user said.
        address: the server's.
    """
    of_address = base_url(address)
    found = [versions(), extras(), ledger(chosen), of_address]
    if of_address.mend:
        # It says which key is needed.
        return found
    of_key, access = key(address)
    found.append(of_key)
    if access and not of_key.mend:
        found += await server(access)
    return found
