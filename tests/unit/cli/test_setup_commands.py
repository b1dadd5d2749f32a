"""Tests of `doctor` and `serve` without a server."""

from __future__ import annotations

import sys

from tests.support.commands import run_command


def test_doctor_prints_a_sign_a_subject_and_a_fix(tmp_path):
    result = run_command("doctor", "--base-url", "nowhere", "--ledger-dir", tmp_path)
    assert result.exit_code == 1
    assert f"✓ ledger: There is no ledger in {tmp_path} yet" in result.stdout
    assert "✗ base URL: nowhere is no valid address.\n  → Use an address like" in result.stdout


def test_serve_without_the_extra_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "distilabel_openai_batch.sandbox", None)
    result = run_command("serve")
    assert result.exit_code == 1
    assert "pip install 'distilabel-openai-batch[sandbox]'" in result.stderr


def test_serve_rejects_a_share_above_one():
    assert run_command("serve", "--fail-share", 2).exit_code == 2
