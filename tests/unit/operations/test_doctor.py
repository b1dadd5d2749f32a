"""Tests of each check of `doctor` without a server."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys

import pytest

from distilabel_openai_batch.errors import AuthenticationError, ConnectionFailedError, QuotaError, RunError
from distilabel_openai_batch.operations import doctor, server_access
from tests.support.commands import add_scope
from tests.support.environment import ROOT
from tests.support.limited_sqlite import UnsharedConnection, connect_with

OPENAI = "https://api.openai.com/v1"
AZURE = "https://a.openai.azure.com/openai"
KEY = "sk-well-formed"


def test_versions_names_every_package_without_a_fix():
    finding = doctor.check_versions()
    assert finding.fix == ""
    for package in ("distilabel-openai-batch", "distilabel", "openai", "Python"):
        assert re.search(rf"(^|, ){package} \d", finding.text)


def test_another_distilabel_release_is_a_problem(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.6.0")
    assert "'distilabel>=1.5.3,<1.6'" in doctor.check_versions().fix


def test_a_missing_package_is_a_problem(monkeypatch):
    def raise_not_found(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", raise_not_found)
    assert "is not installed" in doctor.check_versions().text


def test_extras_are_those_of_the_project():
    table = (ROOT / "pyproject.toml").read_text().split("optional-dependencies]\n")[1].partition("\n[")[0]
    assert set(doctor.EXTRAS) == set(re.findall(r"^(\w+) = ", table, re.M))


def test_a_missing_extra_is_named_with_its_install_command_and_no_problem(monkeypatch):
    packages = ("azure-identity", "genai-prices", "ray", "jinja2", "starlette", "opentelemetry-sdk", "uvicorn")
    extras = ("azure", "prices", "ray", "report", "sandbox", "telemetry", "ui")
    requirements = [f"{package}>=1; extra == '{extra}'" for package, extra in zip(packages, extras, strict=True)]
    monkeypatch.setattr(importlib.metadata, "requires", lambda package: requirements)
    monkeypatch.setattr(doctor, "is_installed", lambda package: package not in ("genai-prices", "ray"))
    finding = doctor.check_extras()
    assert finding.fix == ""
    assert finding.text.startswith("azure, report, sandbox, telemetry, ui; not installed:\n")
    for extra in ("prices", "ray"):
        assert re.search(rf"    {extra}, for .*: pip install 'distilabel-openai-batch\[{extra}\]'", finding.text)
    monkeypatch.setattr(doctor, "is_installed", lambda package: False)
    assert doctor.check_extras().text.startswith("none; not installed:")


def test_a_ledger_is_summed_up(tmp_path):
    assert f"There is no ledger in {tmp_path} yet" in doctor.check_ledger(tmp_path).text
    add_scope(tmp_path, "pipeline", "task", "http://127.0.0.1:9/v1/")
    finding = doctor.check_ledger(tmp_path)
    assert finding.text.endswith("; scopes: 1, jobs: 0, of them open: 0, answers: 0.")
    assert finding.fix == ""


def test_a_damaged_ledger_is_a_problem(tmp_path):
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database" * 100)
    assert doctor.check_ledger(tmp_path).fix == "Move the file away, or choose another directory."


@pytest.mark.parametrize("has_ledger", [False, True])
def test_a_file_system_that_cannot_hold_a_ledger_is_a_problem(tmp_path, monkeypatch, has_ledger):
    """The check notices missing shared memory before the first run."""
    if has_ledger:
        add_scope(tmp_path, "pipeline", "task", "http://127.0.0.1:9/v1/")
    connect_with(monkeypatch, UnsharedConnection)
    finding = doctor.check_ledger(tmp_path)
    assert f"The ledger {tmp_path / 'ledger.sqlite3'} cannot be used" in finding.text
    assert "local disk" in finding.fix


@pytest.mark.skipif(sys.platform == "win32", reason="os.access knows no directory permissions there")
def test_a_ledger_that_is_not_writable_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "is not writable" in doctor.check_ledger(tmp_path).text
    add_scope(tmp_path, "pipeline", "task", "http://127.0.0.1:9/v1/")
    finding = doctor.check_ledger(tmp_path)
    assert finding.text.endswith("The file is not writable.")
    assert "Make the directory writable" in finding.fix


@pytest.mark.parametrize("address", [OPENAI, "http://127.0.0.1:8000/v1", "http://[::1]/v1"])
def test_an_http_url_with_a_host_is_valid(address):
    assert doctor.check_base_url(address) == doctor.Finding("base URL", address)


@pytest.mark.parametrize(
    "address", ["api.openai.com", "http://[::1", "http://127.0.0.1:v1", "http://host:0", "ftp://a"]
)
def test_another_text_is_no_valid_address(address):
    assert doctor.check_base_url(address).text == f"{address} is no valid address."


@pytest.mark.parametrize(
    ("address", "example"),
    [
        ("mine.openai.azure.com/openai", "https://mine.openai.azure.com/openai"),
        ("api.openai.com:443/v1", "https://api.openai.com:443/v1"),
        ("127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("me:secret@host/v1", "https://host/v1"),
        ("ftp://a", OPENAI),
        ("127.0.0.1:v1", OPENAI),
    ],
)
def test_the_advice_for_an_address_without_a_scheme_has_its_host(address, example):
    assert doctor.check_base_url(address).fix == f"Use an address like {example.rstrip('/')}"


def test_a_well_formed_key_is_found_and_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    finding, access = doctor.check_key(OPENAI)
    assert (finding.text, finding.fix) == ("OPENAI_API_KEY is set.", "")
    assert access.key == KEY
    assert KEY not in repr(access)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"'{KEY}'", "sk-é", "sk well"])
def test_a_key_with_other_characters_is_a_problem(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    finding, _ = doctor.check_key(OPENAI)
    assert finding.fix == "Set it to the key only, without quotes or spaces."
    assert KEY not in finding.text


@pytest.mark.parametrize(
    ("address", "fix"),
    [
        (OPENAI, "Create a key at"),
        ("http://127.0.0.1:8000/v1", "OPENAI_API_KEY=anything"),
        ("https://example.com/v1", "Ask the operator"),
        ("https://a.openai.azure.com", "export AZURE_OPENAI_API_KEY="),
        ("https://a.openai.azure.com/openai/v1/", "`az login`"),
        ("https://a.openai.azure.com/openai/deployments/b/chat/completions", "export AZURE_OPENAI_AD_TOKEN="),
        ("http://127.0.0.1:8000/openai", "export AZURE_OPENAI_API_KEY=anything"),
    ],
)
def test_a_missing_key_is_a_problem_whose_fix_depends_on_the_server(address, fix, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(server_access, "environment_token_provider", lambda: None)
    finding, access = doctor.check_key(address)
    assert access is None
    assert fix in finding.fix
    assert ("AZURE" in finding.text) == ("/v1" not in address or "azure" in address)


def test_a_missing_version_of_azures_api_is_a_problem_of_its_own(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    finding, access = doctor.check_key("https://a.openai.azure.com")
    assert (finding.subject, access) == ("API version", None)
    assert "export OPENAI_API_VERSION=2024-10-21" in finding.fix


@pytest.mark.parametrize(
    ("error", "address", "fix"),
    [
        (RunError("no", status_code=404), "https://example.com/", "set it to https://example.com/v1"),
        (RunError("no", status_code=404), OPENAI, "a server with a Batch API"),
        (AuthenticationError("no", status_code=403), OPENAI, "grant it"),
        (AuthenticationError("no", status_code=401), OPENAI, "create a new key"),
        (QuotaError("no", status_code=429), OPENAI, "add credit"),
        (ConnectionFailedError("no"), OPENAI, "network or proxy"),
        (RunError("no", status_code=404), AZURE, "export OPENAI_API_VERSION=2024-10-21"),
        (RunError("no", status_code=400), AZURE, "export OPENAI_API_VERSION=2024-10-21"),
        (AuthenticationError("no", status_code=401), AZURE, "Keys and Endpoint"),
        (AuthenticationError("no", status_code=403), AZURE, "Cognitive Services OpenAI Contributor"),
        (ConnectionFailedError("no"), AZURE, "network or proxy"),
    ],
)
def test_each_error_has_its_fix(error, address, fix):
    assert fix in doctor.fix_of(error, address)


async def test_diagnose_checks_no_key_without_a_valid_address(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    subjects = [finding.subject for finding in await doctor.diagnose(tmp_path, "nowhere")]
    assert subjects == ["versions", "extras", "ledger", "temporary files", "base URL"]
    subjects = [finding.subject for finding in await doctor.diagnose(tmp_path, OPENAI)]
    assert subjects[5:] == ["key"]
