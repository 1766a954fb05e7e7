"""HTTP by uvicorn, where no connection waits for ever: one that sends no whole request in time is closed.

Else a few programs that open connections and stay silent would keep all others out (Slowloris, 2009). The guard bounds
the time of a body.
"""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 20.0
"""How long a connection may take to send the header of a request."""
CONNECTIONS = 512
"""Connections at once, at most."""


class Protocol(H11Protocol):
    """A connection, which is looked at each second while it is open."""

    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        self._close_if_late()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()

    def _close_if_late(self) -> None:
        if self.transport.is_closing():
            return
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and self.loop.time() - self._since > HEADER_SECONDS:
            self.transport.abort()
        else:
            self.loop.call_later(min(1, HEADER_SECONDS / 2), self._close_if_late)
