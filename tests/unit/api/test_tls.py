"""The TLS context that clients share."""

from pathlib import Path

import certifi
import pytest

from distilabel_openai_batch.api.tls import tls_context
from distilabel_openai_batch.api.transport import sdk_client


def test_clients_share_one_context() -> None:
    contexts = {
        client._client._transport._pool._ssl_context
        for client in (sdk_client(None, "sk-a", timeout=1), sdk_client(None, "sk-b", timeout=1))
    }
    assert contexts == {tls_context()}


def test_root_certificates_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = Path(certifi.where()).read_text(encoding="utf-8")
    first_certificate = text[text.index("-----BEGIN") : text.index("-----END") + len("-----END CERTIFICATE-----")]
    (tmp_path / "one.pem").write_text(first_certificate, encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one.pem"))
    one = tls_context()
    (tmp_path / "none").mkdir()
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert one is not tls_context()
    assert one.cert_store_stats()["x509"] == 1
