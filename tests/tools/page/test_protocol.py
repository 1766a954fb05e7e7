"""Connections that send nothing, or half of a header, are closed; others stay."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason='comes with Gradio: pip install "i2i[web]"; see make test-page')

import uvicorn

from i2i.tools.page import protocol

pytestmark = pytest.mark.promise("R51")
SECONDS = 0.4


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers after a time that is longer than that of a header."""
    if scope["type"] == "http":
        await asyncio.sleep(3 * SECONDS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def answer(port: int, *parts: bytes) -> bytes:
    """The bytes that a server answers to these, one after the other, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(SECONDS / 3)
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_who_sends_no_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", SECONDS)
    whole = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    again = whole.replace(b"Connection: close\r\n", b"")

    async def all_of_them() -> list[bytes]:
        config = uvicorn.Config(
            slow, port=0, http=protocol.Protocol, lifespan="off", log_config=None, timeout_keep_alive=60
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        found = await asyncio.gather(
            answer(port),
            answer(port, b"GET / HT", b"TP/1.1\r\n", b"Host: a\r\n"),
            answer(port, whole),
            answer(port, again),
        )
        server.should_exit = True
        await serving
        return list(found)

    silent, half, once, kept = asyncio.run(all_of_them())
    assert silent == b"" and half == b""
    assert once.endswith(b"\r\n\r\nok")
    assert kept.endswith(b"\r\n\r\nok"), "closed when no second request came"
