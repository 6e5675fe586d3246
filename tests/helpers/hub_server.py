"""A stand-in for the Hugging Face hub: it takes commits of small files and remembers them."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_stand_in"


@dataclass
class Hub:
    """What was sent."""

    url: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each was made with."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Of all commits, by name."""
    commits: list[str] = field(default_factory=list)
    """Their messages."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, content: Any, **headers: str) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refused(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return False
            what = "Invalid credentials in Authorization header"
            self.answer(401, {"error": what}, X_Error_Message=what)
            return True

        def do_GET(self) -> None:
            repo = "/".join(self.path.removeprefix("/api/models/").split("/")[:2])
            if not self.refused():
                if repo in hub.repos:
                    self.answer(200, {"id": repo, "siblings": []})
                else:
                    self.answer(404, {"error": "not found"}, X_Error_Code="RepoNotFound")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.refused():
                return
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                hub.repos[repo] = asked
                self.answer(200, {"url": f"{hub.url}/{repo}"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self.answer(200, {"files": modes})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "header":
                        hub.commits.append(line["value"]["summary"])
                    else:
                        hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer(200, {"commitUrl": f"{hub.url}/me/net/commit/1", "commitOid": "1"})
            else:
                self.answer(200, {"errors": [], "warnings": []})  # Of the card's head.

    return Handler


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
