"""The web page app.py as a process on a free port of this machine, and a client of its API.

    with PageServer(root, folder) as server:
        event, answer = server.call("describe", server.upload({"a.png": content}), ..., visitor="10.0.0.1")

Uploaded files are below `folder`. The process writes each address outside this machine that it connects to into
`server.connections`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason='gradio, which brings httpx, is not installed: pip install -e ".[demo]"')

# sitecustomize.py of the process.
WATCH = """
import os
import sys
def audit(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][0] not in ("127.0.0.1", "::1", "localhost"):
            with open(os.environ["CONNECTIONS"], "a") as file:
                file.write(f"{arguments[1]}\\n")
sys.addaudithook(audit)
"""


class PageServer:
    """The page, from `with` on until its end."""

    def __init__(self, root: Path, folder: Path, *options: str, **environment: str):
        self.root, self.folder = root, folder
        self.connections = folder / "connections.txt"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        self.uploads = folder / "uploads"
        self.uploads.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, str(root / "app.py"), "--port", str(self.port), *options]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GRADIO_", "SPACE_"))},
            **{"TMPDIR": str(self.uploads), "PYTHONPATH": str(folder / "watch"), "CONNECTIONS": str(self.connections)},
            **environment,
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log.txt"

    def __enter__(self) -> "PageServer":
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True
            )
        line = self.process.stdout.readline()
        assert line.startswith("open http://"), self.log.read_text()
        self.client = httpx.Client(base_url=self.url)
        self.client.timeout = None  # the machine may be busy
        return self

    def __exit__(self, *_: Any) -> None:
        self.client.close()
        self.stop()

    def stop(self) -> int:
        """End the process as a service manager does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def post_files(self, files: dict[str, bytes], visitor: str = "10.0.0.1") -> Any:
        """Return the response to an upload."""
        content = [("files", (name, data)) for name, data in files.items()]
        # uvicorn believes a proxy on the same machine
        return self.client.post("/gradio_api/upload", files=content, headers={"X-Forwarded-For": visitor})

    def upload(self, name: str, content: bytes, visitor: str = "10.0.0.1") -> dict[str, Any]:
        """Return gradio's description of an uploaded file."""
        response = self.post_files({name: content}, visitor)
        assert response.status_code == 200, response.text
        return uploaded(response.json()[0], name)

    def call(self, function: str, *values: Any, visitor: str = "10.0.0.1") -> tuple[str, Any]:
        """Return the last event of a call, "complete" or "error", and its data."""
        headers = {"X-Forwarded-For": visitor}
        response = self.client.post(f"/gradio_api/call/{function}", json={"data": values}, headers=headers)
        if response.status_code != 200:
            return "error", response.text
        address = f"/gradio_api/call/{function}/{response.json()['event_id']}"
        *_, event, data = self.client.get(address, headers=headers).text.strip().splitlines()
        return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def stored_files(self) -> list[str]:
        """Return the names of all files that visitors left on the disk."""
        return [path.name for path in self.uploads.rglob("*") if path.is_file()]


def uploaded(path: str, name: str) -> dict[str, Any]:
    """Return how a client describes a file to gradio."""
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
