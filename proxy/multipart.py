"""Multipart bodies: spooled while they are read, re-encoded from what was read, streamed from the spool."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import MemoryFileUploadHandler, StopUpload, TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from .dialects.base import FilePart, Form
from .exceptions import BadRequest
from .fairness import let_others_run, one_at_a_time

_BLOCK = 65536


class _Memory(MemoryFileUploadHandler):
    chunk_size = 16 * 1024  # Django parses so much between two reads: 180 small parts take 14 ms


class _Temporary(TemporaryFileUploadHandler):
    chunk_size = 16 * 1024


class _Fair:
    """An uploaded file that lets other calls run before each read: the length of a recording takes many."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek = file.seek

    def read(self, size: int = -1) -> bytes:
        let_others_run()
        data: bytes = self._file.read(size)
        return data


class _Counted:
    """A stream that knows how much came: Django's parser takes half a file for a whole one.

    Between two reads of it the parser works; one form at a time does so before other calls run.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._parses = False
        self.size = 0

    def read(self, size: int) -> bytes:
        self.pause()
        data: bytes = self._stream.read(size)
        self.size += len(data)
        one_at_a_time.acquire()
        self._parses = True
        return data

    def pause(self) -> None:
        """Let others run, and parse their forms."""
        if self._parses:
            self._parses = False
            let_others_run()
            one_at_a_time.release()


def parse(meta: dict[str, Any], stream: Any) -> Form:
    """A form of ``CONTENT_LENGTH`` bytes read by Django's parser; files beyond 2.5 MB lie in temporary files.

    Raises:
        BadRequest: not a well-formed multipart body, or too many or too large fields, or it ends early.
    """
    counted: Any = _Counted(stream)
    try:
        handlers = [_Memory(), _Temporary()]
        fields, files = MultiPartParser(meta, counted, handlers).parse()
        while counted.read(_BLOCK):
            pass  # what follows the last part
    except (MultiPartParserError, SuspiciousOperation, StopUpload, ValueError, OSError) as error:
        raise BadRequest("The multipart body is malformed.") from error
    finally:
        counted.pause()
    if counted.size != int(meta["CONTENT_LENGTH"]):
        raise BadRequest("The body is shorter than its Content-Length.")
    return Form(
        fields=tuple((name, value) for name, values in fields.lists() for value in values),
        files=tuple(
            FilePart(name, file.name or "", file.content_type or "application/octet-stream", file.size, _Fair(file))
            for name, uploads in files.lists()
            for file in uploads
        ),
    )


def encode(form: Form) -> tuple[str, int, Iterator[bytes]]:
    """Content type, length in bytes and the body, block by block (RFC 7578)."""
    boundary = f"aipassport-{secrets.token_hex(16)}"
    parts: list[tuple[bytes, Any, int]] = []
    for name, value in form.fields:
        data = value.encode()
        parts.append((_head(boundary, f'name="{_quoted(name)}"'), data, len(data)))
    for part in form.files:
        disposition = f'name="{_quoted(part.name)}"; filename="{_quoted(part.filename)}"'
        parts.append((_head(boundary, disposition, part.content_type), part.file, part.size))
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + size + 2 for head, _, size in parts) + len(tail)
    return f"multipart/form-data; boundary={boundary}", length, _blocks(parts, tail)


def _head(boundary: str, disposition: str, content_type: str | None = None) -> bytes:
    lines = [f"--{boundary}", f"Content-Disposition: form-data; {disposition}"]
    if content_type is not None:
        lines.append(f"Content-Type: {_quoted(content_type)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quoted(value: str) -> str:
    """As browsers do (WHATWG): what would end the parameter or the line is percent-encoded."""
    return value.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _blocks(parts: list[tuple[bytes, Any, int]], tail: bytes) -> Iterator[bytes]:
    for head, data, _ in parts:
        yield head
        if isinstance(data, bytes):
            yield data
        else:
            data.seek(0)
            while block := data.read(_BLOCK):
                yield block
        yield b"\r\n"
    yield tail
