"""The provider of the soak. What it does is said by the model: ``soak-small`` answers, ``soak-reset`` resets, ….

``GET /count`` tells in JSON how many calls of each model came, how many are being answered, and how many connections
are open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import Any

from paced_sse import HEAD, Provider, chunk, framed

SMALL = json.dumps(
    {
        "id": "chatcmpl-soak",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
).encode()
ERROR = b'{"error":{"message":"The server had an error.","type":"server_error","code":"soak"}}'


class Mixed(Provider):
    def __init__(self, pause: float) -> None:
        super().__init__(pause)
        self.calls: Counter[str] = Counter()
        self.busy = self.connections = 0

    def count(self) -> bytes:
        """The connection that asks is left out."""
        now = {"calls": self.calls, "busy": self.busy, "connections": self.connections - 1}
        return json.dumps(now).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await super().serve(reader, writer)
        finally:
            self.connections -= 1

    async def answer(self, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls[request["model"]] += 1
        self.busy += 1
        try:
            match request["model"].removeprefix("soak-"):
                case "error":
                    _whole(writer, b"500 Internal Server Error", ERROR)
                case "reset":
                    _reset(writer)
                case "cut":
                    writer.write(HEAD + framed(chunk(0)))
                    await writer.drain()
                    await asyncio.sleep(self.pause)
                    _reset(writer)
                case "silent":
                    writer.write(HEAD)
                    await _until_left(reader)
                case "mute":
                    await _until_left(reader)
                case _ if request.get("stream"):
                    await self.stream(writer, request["max_tokens"])
                case _:
                    _whole(writer, b"200 OK", SMALL)
        finally:
            self.busy -= 1


def _whole(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % (status, len(body)) + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


async def _until_left(reader: asyncio.StreamReader) -> None:
    """Say nothing until the relay breaks off."""
    with suppress(ConnectionError):
        await reader.read(1)
    raise ConnectionResetError


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two chunks")
    options = parser.parse_args()
    server = await asyncio.start_server(Mixed(options.pause).serve, "127.0.0.1", options.port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
