"""Check for problems that keep a pipeline from running, and name their fixes."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from distilabel_openai_batch.api.addresses import is_loopback, public_address
from distilabel_openai_batch.engine.scratch import remove_leftovers
from distilabel_openai_batch.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidSettingError,
    LedgerError,
    MissingSettingError,
    OpenAIBatchError,
    QuotaError,
    RunError,
)
from distilabel_openai_batch.ledger.connection import check_file_system
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.operations.server_access import (
    NO_HEADERS,
    SHORT_PATIENCE,
    ServerAccess,
    find_azure_endpoint,
)
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.text import plural

_PACKAGES = ("distilabel-openai-batch", "distilabel", "openai")
"""Packages whose versions belong into a bug report."""

_DISTILABEL_VERSION = "1.5."
"""Prefix of the distilabel versions whose internals the hooks patch."""

EXTRAS = {
    "azure": "Microsoft Entra ID on Azure",
    "prices": "costs of answers, and `budget`",
    "ray": "pipelines on Ray",
    "report": "`report`",
    "sandbox": "`serve`",
    "telemetry": "traces and metrics by OpenTelemetry",
    "ui": "`ui`",
}
"""Extras that a user may install, with their purpose."""

_EXTRA_REQUIREMENT = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")

_KEY_FIX = "Set it to the key only, without quotes or spaces."

# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_VERSION_FIX = (
    "export OPENAI_API_VERSION=2024-10-21, or use the address with `/openai/v1/`, which needs no version. Check that"
    " the endpoint is that of the resource."
)

# https://learn.microsoft.com/azure/ai-services/openai/how-to/managed-identity
_AZURE_KEY_FIX = (
    "Copy a key of this resource from *Keys and Endpoint* in Azure's portal: export AZURE_OPENAI_API_KEY=… If the"
    " resource takes no keys, use Microsoft Entra ID: pip install 'distilabel-openai-batch[azure]' and `az login`, or"
    " export AZURE_OPENAI_AD_TOKEN=…"
)
# https://learn.microsoft.com/azure/ai-services/openai/how-to/role-based-access-control
_AZURE_ROLE_FIX = (
    "Grant the owner of the token a role at the resource that creates files and batches, such as *Cognitive Services"
    " OpenAI Contributor*, and check that the resource accepts calls from this network."
)
_DEPLOYMENT_NOTE = (
    "`model` has to be the name of a deployment of the type Global Batch or Data Zone Batch, which the list does not"
    " show."
)

_LOCAL_HOST = re.compile(r"localhost|.*\.localhost|127\..*|::1|0\.0\.0\.0")

_SILENT_LOGGER = logging.getLogger(f"{__name__}.silent")
_SILENT_LOGGER.addHandler(logging.NullHandler())
_SILENT_LOGGER.propagate = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        subject: name of the checked thing.
        text: state of the checked thing.
        fix: action that fixes the problem; empty if there is no problem.
    """

    subject: str
    text: str
    fix: str = ""


def check_versions() -> Finding:
    """Return the installed versions, with a fix if distilabel is not the supported release."""
    try:
        versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("versions", f"{error.name} is not installed.", "pip install distilabel-openai-batch")
    text = ", ".join(f"{package} {version}" for package, version in versions.items())
    text += f", Python {platform.python_version()}"
    if not versions["distilabel"].startswith(_DISTILABEL_VERSION):
        return Finding("versions", text, "Only distilabel 1.5 is supported: pip install 'distilabel>=1.5.3,<1.6'")
    return Finding("versions", text)


def check_extras() -> Finding:
    """Return the installed extras, and the commands that install the others. A missing extra is no problem."""
    missing: dict[str, None] = {}
    for requirement in importlib.metadata.requires("distilabel-openai-batch") or ():
        if (match := _EXTRA_REQUIREMENT.match(requirement)) and not is_installed(match[1]):
            missing[match[2]] = None
    installed = ", ".join(extra for extra in EXTRAS if extra not in missing) or "none"
    lines = [
        f"\n    {extra}, for {purpose}: pip install 'distilabel-openai-batch[{extra}]'"
        for extra, purpose in EXTRAS.items()
        if extra in missing
    ]
    return Finding("extras", f"{installed}{'; not installed:' if lines else ''}{''.join(lines)}")


def is_installed(package: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_ledger(chosen: Path | None) -> Finding:
    """Check that the ledger can be read and written.

    Args:
        chosen: directory that the user named; `None` for the default directory.
    """
    try:
        directory = ledger_directory(chosen)
    except LedgerError as error:
        return Finding("ledger", str(error), "Set one of these, or HOME.")
    reader = LedgerReader(directory)
    fix = "Make the directory writable, or choose another one: --ledger-dir here, `ledger_dir` of the LLM."
    existing = next((path for path in (reader.path, *reader.path.parents) if os.path.exists(path)), Path("/"))
    if existing != reader.path:
        if not os.access(existing, os.W_OK | os.X_OK):
            return Finding("ledger", f"There is no ledger in {directory}, and {existing} is not writable.", fix)
        text = f"There is no ledger in {directory} yet; the first run creates it."
        return _check_file_system(reader.path, existing) or Finding("ledger", text)
    try:
        text = _ledger_content(reader)
    except LedgerError as error:
        return Finding("ledger", str(error), "Move the file away, or choose another directory.")
    if not (os.access(reader.path, os.W_OK) and os.access(directory, os.W_OK | os.X_OK)):
        return Finding("ledger", f"{text} The file is not writable.", fix)
    return _check_file_system(reader.path, directory) or Finding("ledger", text)


def _check_file_system(path: Path, directory: Path) -> Finding | None:
    """Return the problem of a file system that cannot hold a ledger; `None` if there is no problem."""
    try:
        check_file_system(path, directory)
    except (LedgerError, OSError) as error:
        return Finding(
            "ledger", str(error), "Choose a directory on a local disk: --ledger-dir, `ledger_dir` of the LLM."
        )
    return None


def _ledger_content(reader: LedgerReader) -> str:
    scopes, jobs = reader.scopes(), reader.jobs()
    interrupted = sum(job.is_interrupted for job in jobs)
    return (
        f"{reader.path}; scopes: {len(scopes):,}, jobs: {len(jobs):,}, of them open:"
        f" {sum(job.is_open for job in jobs):,}{f', interrupted: {interrupted:,}' if interrupted else ''}, answers:"
        f" {sum(scope.answered for scope in scopes):,}."
    )


def check_scratch_directories() -> Finding:
    """Delete the prompts that killed runs left in the temporary directory, and return their number."""
    removed = remove_leftovers()
    text = f"Removed {plural(removed, 'leftover')} of killed runs." if removed else "No leftovers."
    return Finding("temporary files", text)


def check_base_url(address: str) -> Finding:
    """Check that an address is an HTTP URL with a host."""
    if not _is_http_url(address):
        text = f"{public_address(address)} is no valid address."
        with_scheme = f"{'http' if is_loopback(f'http://{address}') else 'https'}://{address}"
        is_complete = "//" not in address and _is_http_url(with_scheme)
        example = public_address(with_scheme) if is_complete else "https://api.openai.com/v1"
        return Finding("base URL", text, f"Use an address like {example}")
    endpoint = find_azure_endpoint(address)
    return Finding("base URL", public_address(endpoint.base_url if endpoint else address))


def _is_http_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # A bracket is not closed, or the port is no number → the address is invalid.
        return False


def _has_no_version(address: str) -> bool:
    return not re.search(r"/v\d|/openai", urlsplit(address).path)


def _is_local(address: str) -> bool:
    return _LOCAL_HOST.fullmatch(urlsplit(address).hostname or "") is not None


def check_key(address: str, headers: Mapping[str, str] = NO_HEADERS) -> tuple[Finding, ServerAccess | None]:
    """Check that the environment has a well-formed key for a server. The key itself is never shown.

    Returns:
        The finding, and the access to the server; `None` if there is no key.
    """
    try:
        access = ServerAccess.from_environment(address, headers)
    except InvalidSettingError as error:
        return Finding("key", str(error), _KEY_FIX), None
    except MissingSettingError as error:
        return Finding("API version", str(error), _VERSION_FIX), None
    except OpenAIBatchError as error:
        return Finding("key", str(error), _source_of_keys(address)), None
    if access.token_provider:
        return Finding("key", f"Tokens of Microsoft Entra ID, from {access.key_variable}."), access
    raw = os.environ[access.key_variable]
    if raw != access.key or access.key[0] in "\"'" or not access.key.isascii() or any(map(str.isspace, access.key)):
        text = f"{access.key_variable} has spaces, quotes or non-ASCII characters in it or around it."
        return Finding("key", text, _KEY_FIX), access
    return Finding("key", f"{access.key_variable} is set."), access


def _source_of_keys(address: str) -> str:
    if find_azure_endpoint(address):
        if _is_local(address):
            return "The sandbox takes any key: export AZURE_OPENAI_API_KEY=anything"
        return _AZURE_KEY_FIX
    if _is_local(address):
        return "A local server may ignore the key, but the SDK has to send one: export OPENAI_API_KEY=anything"
    if prices.find_provider(address) == "openai":
        return "Create a key at https://platform.openai.com/api-keys"
    return "Ask the operator of the server for a key."


async def check_server(access: ServerAccess) -> list[Finding]:
    """Check that the server accepts the key, by listing batches and files once each, which costs nothing."""
    async with access.open(SHORT_PATIENCE, _SILENT_LOGGER) as api:
        try:
            lists_batches = await api.can_list_batches()
        except RunError as error:
            return [Finding("batches", str(error), fix_of(error, access.base_url))]
        batches = Finding("batches", "The server lists its batches.")
        if find_azure_endpoint(access.base_url):
            batches = Finding("batches", f"The server lists its batches. {_DEPLOYMENT_NOTE}")
        if not lists_batches:
            batches = Finding(
                "batches",
                "The server does not list its batches. If the address is right, runs work, but a run ends with an error"
                " if the reply to a batch's creation is lost, because the batch cannot be found.",
            )
        try:
            await api.files.check_list()
        except RunError as error:
            if error.status_code == 404 and not lists_batches:
                text = f"{access.base_url} has neither batches nor files: it answers 404."
                return [Finding("batches", text, fix_of(error, access.base_url))]
            return [batches, Finding("files", str(error), fix_of(error, access.base_url))]
        return [batches, Finding("files", "The server lists its files.")]


def fix_of(error: RunError, address: str) -> str:
    """Return the most likely fix of an error that a server returned.

    Args:
        error: error of a call.
        address: address of the server.
    """
    is_azure = find_azure_endpoint(address) is not None
    match error:
        case RunError(status_code=400 | 404) if is_azure:
            return _VERSION_FIX
        case AuthenticationError(status_code=403) if is_azure:
            return _AZURE_ROLE_FIX
        case AuthenticationError() if is_azure:
            return f"The resource rejects this key or token. {_AZURE_KEY_FIX}"
        case RunError(status_code=404) if _has_no_version(address):
            return f"The base URL lacks its version: set it to {address.rstrip('/')}/v1"
        case AuthenticationError(status_code=403):
            return "The key lacks permissions: grant it reading and writing of batches and files."
        case AuthenticationError():
            return "The server rejects this key: create a new key, or set the base URL of the key's own server."
        case QuotaError():
            return "The account has run out of money: add credit."
        case ConnectionFailedError():
            return "Check the base URL, that the server runs, and that the network or proxy lets the call through."
        case _:
            return "Check that the base URL is that of a server with a Batch API."


async def diagnose(chosen: Path | None, address: str, headers: Mapping[str, str] = NO_HEADERS) -> list[Finding]:
    """Run all checks; a check that an earlier problem makes impossible is left out.

    Args:
        chosen: directory of the ledger that the user named; `None` for the default directory.
        address: address of the server.
        headers: headers of every call.
    """
    base_url = check_base_url(address)
    findings = [check_versions(), check_extras(), check_ledger(chosen), check_scratch_directories(), base_url]
    if base_url.fix:
        # The address determines the key → without a valid address no key can be checked.
        return findings
    key, access = check_key(address, headers)
    findings.append(key)
    if access and not key.fix:
        findings += await check_server(access)
    return findings
