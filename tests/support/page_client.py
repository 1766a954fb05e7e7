"""A visitor of the page without a browser: what Gradio's JavaScript sends, by the standard library alone."""

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOUNDARY = "i2i-boundary"


def order(files: Any, styles: Any, camera: Any = None, **options: Any) -> list[Any]:
    """The data of an order: files, folder, camera, styles, and the options as they are at first."""
    chosen = {"size": 0, "strength": 1, "keep": "nothing", "mask": None, "mix": "", "drawn": ""} | options
    return [files, None, camera, styles, *chosen.values()]


@dataclass
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visitor:
    """One open page. `headers` go with each request."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    query: str = ""
    """The query of the address that the server has printed."""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, self.headers | named)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            connection.close()

    def wait(self) -> None:
        """Until the server listens."""
        for _ in range(600):
            with suppress(OSError):
                self.ask("GET", "/")
                return
            time.sleep(0.05)

    def upload(self, *paths: Path) -> Reply:
        parts = []
        for path in paths:
            head = f'Content-Disposition: form-data; name="files"; filename="{path.name}"'
            kind = "Content-Type: application/octet-stream"
            parts += [f"--{BOUNDARY}\r\n{head}\r\n{kind}\r\n\r\n".encode(), path.read_bytes(), b"\r\n"]
        body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
        return self.ask("POST", "/gradio_api/upload", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")

    def uploaded(self, *paths: Path) -> list[dict[str, Any]]:
        """The files as an order names them."""
        there = self.upload(*paths).json()
        return [
            {"path": path, "orig_name": source.name, "meta": {"_type": "gradio.FileData"}}
            for path, source in zip(there, paths, strict=True)
        ]

    def join(self, handler: str, data: list[Any]) -> Reply:
        """Queue a call of a handler of the page, by its name."""
        config = self.ask("GET", "/config").json()
        number = next(d["id"] for d in config["dependencies"] if d["api_name"] == handler)
        body = {"data": data, "fn_index": number, "session_hash": self.session, "event_data": None, "trigger_id": None}
        return self.ask("POST", "/gradio_api/queue/join", json.dumps(body).encode(), Content_Type="application/json")

    def messages(self) -> Iterator[dict[str, Any]]:
        """The messages of the server about this visitor's calls, until they are done."""
        body = self.ask("GET", f"/gradio_api/queue/data?session_hash={self.session}").body.decode()
        for line in body.splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def call(self, handler: str, data: list[Any]) -> dict[str, Any]:
        """The outcome of a call: `success`, and `output` with the `data` of the parts that it changes."""
        joined = self.join(handler, data)
        assert joined.status == 200, joined.body
        return next(message for message in self.messages() if message["msg"] == "process_completed")

    def translate(self, files: Any, styles: Any, **options: Any) -> dict[str, Any]:
        return self.call("_translate", order(files, styles, **options))


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[Visitor, "subprocess.Popen[str]"]]:
    """`i2i serve WORDS` at a free port, its temporary files in `folder`."""
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "i2i", "serve", *words, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            assert address, process.stderr.read()
            place, mark, query = address.partition("?")
            visitor = Visitor(int(place.rstrip("/").rpartition(":")[2]), query=mark + query)
            visitor.wait()
            yield visitor, process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def seconds_of(process: "subprocess.Popen[str]") -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":  # how long the first result takes
    import tempfile

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, serving(Path(name), *sys.argv[2:]) as (visitor, process):
        print(f"page: {time.monotonic() - began:.1f} s, {seconds_of(process):.1f} s of a processor")
        done = visitor.translate(visitor.uploaded(Path(sys.argv[1])), ["monet"])
        print(f"result: {time.monotonic() - began:.1f} s, {seconds_of(process):.1f} s of a processor")
        print(json.dumps(done)[:1500])
