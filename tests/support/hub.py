"""Hugging Face Hub of one dataset on the loopback, with the calls that `datasets` makes to load a file."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@contextmanager
def serve_dataset(repository: str, file_name: str, content: bytes):
    """Serve a dataset of one file, and yield the address of the Hub."""
    dataset_info = {
        "id": repository,
        "sha": COMMIT,
        "siblings": [{"rfilename": file_name}],
        "private": False,
        "tags": [],
    }
    tree = [{"type": "file", "path": file_name, "size": len(content), "oid": COMMIT}]

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/datasets/{repository}/tree/") and path.endswith(COMMIT):
                self.reply(json.dumps(tree).encode())
            elif path.startswith(f"/api/datasets/{repository}") and "/tree/" not in path:
                self.reply(json.dumps(dataset_info).encode())
            elif path.startswith(f"/datasets/{repository}/resolve/") and path.endswith(f"/{file_name}"):
                self.reply(content, {"ETag": '"1"', "X-Repo-Commit": COMMIT})
            else:
                self.reply(b"{}", {"X-Error-Code": "EntryNotFound"}, status=404)

        do_HEAD = do_GET

        def reply(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
