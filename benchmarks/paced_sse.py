"""A provider that streams at a steady pace: OpenAI chat chunks over SSE, ending in usage and ``[DONE]``.

``max_tokens`` of the request is the number of chunks. The first one is sent at once, so that what a client waits for it
is what stands in between; the next ones ``--pause`` apart. ``GET /count`` tells how many requests came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

_TAIL_PAUSE = 0.02  # seconds between the last chunk and the end, so that they do not travel together
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(choices: list[Any], **more: Any) -> bytes:
    body = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-4o-mini"}
    return b"data: " + json.dumps(body | {"choices": choices} | more, separators=(",", ":")).encode() + b"\n\n"


def chunk(number: int) -> bytes:
    """Each differs from the others: a lost or swapped one shows."""
    return _event([{"index": 0, "delta": {"content": f"token {number} "}, "finish_reason": None}])


def tail(chunks: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": chunks, "total_tokens": chunks + 9}
    stop = _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return stop + _event([], usage=usage) + b"data: [DONE]\n\n"


def answer(chunks: int) -> bytes:
    """The whole body that a request for so many chunks gets."""
    return b"".join(chunk(number) for number in range(chunks)) + tail(chunks)


class Provider:
    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(":") for line in head.lower().split("\r\n")[1:]]
        headers = {name: value.strip() for name, _, value in lines}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("GET /count "):
            count = self.count()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(count), count))
        else:
            self.requests += 1
            await self.answer(json.loads(body), reader, writer)
        await writer.drain()
        return headers.get("connection") != "close"

    def count(self) -> bytes:
        """What ``GET /count`` answers."""
        return b"%d" % self.requests

    async def answer(self, request: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call, whose body is ``request``."""
        await self.stream(writer, request["max_tokens"])

    async def stream(self, writer: asyncio.StreamWriter, chunks: int) -> None:
        writer.write(HEAD + framed(chunk(0)))
        for number in range(1, chunks):
            await asyncio.sleep(self.pause)
            writer.write(framed(chunk(number)))
            await writer.drain()
        await asyncio.sleep(_TAIL_PAUSE)
        writer.write(framed(tail(chunks)) + b"0\r\n\r\n")


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two chunks")
    options = parser.parse_args()
    provider = Provider(options.pause)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", options.port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
