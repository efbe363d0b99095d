"""One client connection: HTTP/1.1 over TLS, one request at a time, and a precise account of how it ended."""

import asyncio
import ssl
from dataclasses import dataclass, field

_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 16 * 1024 * 1024


class Lost(Exception):
    """The request got no complete answer. `seen` is how many bytes of one had arrived."""

    def __init__(self, reason: str, detail: str = "", seen: int = 0, status: int = 0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.seen = seen
        self.status = status


@dataclass(slots=True)
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    close: bool = False  # the server said that this connection ends here


class Parser:
    """Takes bytes as they come; `done` once a whole response is there."""

    def __init__(self) -> None:
        self.response = Response()
        self.seen = 0
        self.done = False
        self._buffer = bytearray()
        self._body = bytearray()
        self._in_body = False
        self._left: int | None = None  # bytes of the body (or of the chunk) still to come; None: until the end
        self._chunked = False
        self._trailer = False

    def feed(self, data: bytes) -> None:
        if self.done:
            raise Lost("protocol", "bytes after the end of the response", self.seen, self.response.status)
        self.seen += len(data)
        self._buffer += data
        if not self._in_body and not self._head():
            return
        if self._chunked:
            self._chunks()
        else:
            self._plain()
        if len(self._body) > _BODY_LIMIT:
            raise Lost("protocol", "the body is over 16 MiB", self.seen, self.response.status)

    def eof(self) -> None:
        """The connection ended: fine only for a body that lasts until then."""
        if self._in_body and not self._chunked and self._left is None:
            self._finish()

    def _head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    raise Lost("protocol", "the head is over 64 KiB", self.seen)
                return False
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            version, _, rest = lines[0].partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
                raise Lost("protocol", f"not a status line: {lines[0][:60]!r}", self.seen)
            if not rest.startswith("1"):  # an interim response is followed by the real one
                break
        response = self.response
        response.status = int(rest[:3])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            response.headers[name.strip().lower()] = value.strip()
        connection = response.headers.get("connection", "").lower()
        response.close = connection == "close" or (version == "HTTP/1.0" and connection != "keep-alive")
        if response.status in (204, 304):
            self._left = 0
        elif response.headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunked, self._left = True, 0
        elif "content-length" in response.headers:
            length = response.headers["content-length"]
            if not length.isdigit():
                raise Lost("protocol", f"Content-Length is {length[:20]!r}", self.seen, response.status)
            self._left = int(length)
        else:
            response.close = True
        self._in_body = True
        return True

    def _plain(self) -> None:
        if self._left is None:
            self._body += self._buffer
            self._buffer.clear()
            return
        take = self._buffer[: self._left]
        self._body += take
        del self._buffer[: len(take)]
        self._left -= len(take)
        if not self._left:
            self._finish()

    def _chunks(self) -> None:
        while True:
            if self._left:
                take = self._buffer[: self._left]
                self._body += take
                del self._buffer[: len(take)]
                self._left -= len(take)
                if self._left:
                    return
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if self._trailer:
                if not line:
                    self._finish()
                    return
            elif line:  # an empty line is the end of the chunk before
                try:
                    self._left = int(line.partition(b";")[0], 16)
                except ValueError:
                    raise Lost("protocol", f"chunk size {line[:20]!r}", self.seen, self.response.status) from None
                self._trailer = self._left == 0

    def _finish(self) -> None:
        if self._buffer:
            raise Lost("protocol", "bytes after the end of the response", self.seen, self.response.status)
        self.response.body = bytes(self._body)
        self.done = True


class Connection(asyncio.Protocol):
    """A TLS connection. `open` says whether another request may be tried on it."""

    def __init__(self) -> None:
        self.open = False
        self.served = 0
        self._transport: asyncio.Transport | None = None
        self._parser: Parser | None = None
        self._answer: asyncio.Future[Response] | None = None

    @classmethod
    async def connect(cls, address: str, port: int, host: str, context: ssl.SSLContext) -> "Connection":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(cls, address, port, ssl=context, server_hostname=host)
        except ConnectionRefusedError as error:
            raise Lost("refused", str(error)) from error
        except ssl.SSLError as error:
            raise Lost("tls", error.reason or str(error)) from error
        except ConnectionError as error:
            raise Lost("reset", f"while connecting: {error}") from error
        except OSError as error:
            raise Lost("unreachable", str(error)) from error
        return connection

    async def request(self, head: bytes) -> Response:
        """Send one request and wait for all of its answer; the caller limits the time."""
        if not self.open or self._transport is None or self._answer is not None:
            raise Lost("closed", "the connection had ended before the request was sent")
        self._parser = Parser()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        try:
            response = await self._answer
        finally:
            self._answer = None
        self._parser = None
        self.served += 1
        if response.close:
            self.close()
        return response

    @property
    def seen(self) -> int:
        """Bytes of the answer in hand."""
        return self._parser.seen if self._parser else 0

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._answer is None or self._answer.done():
            self.abort()  # nobody asked: such a connection cannot be trusted with another request
            return
        try:
            self._parser.feed(data)
        except Lost as lost:
            self._answer.set_exception(lost)
            self.abort()
            return
        if self._parser.done:
            self._answer.set_result(self._parser.response)

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def _ended(self, error: Exception | None) -> None:
        self.open = False
        if self._parser is None or self._answer is None or self._answer.done():
            return
        self._parser.eof()
        if self._parser.done:
            self._answer.set_result(self._parser.response)
            return
        seen, status = self._parser.seen, self._parser.response.status
        if seen:
            reason = "truncated"
        elif isinstance(error, ConnectionError):
            reason = "reset"
        else:
            reason = "closed"
        self._answer.set_exception(Lost(reason, str(error or ""), seen, status))
