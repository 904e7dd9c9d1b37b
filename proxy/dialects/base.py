"""What every dialect gives and takes: the frozen values that travel between the relay's rooms.

    Inbound ── dialects.read() ──► UpstreamCall ── upstream.send() ──► the answer's bytes
                                                                          │ sse.Decoder
                                   Observer ◄─────────────────────────────┘

Pure: no Django, no HTTP client, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from grants.providers import Capability

from . import lowering

# Query parameters in which a token might be sent; in lower case.
CREDENTIAL_PARAMETERS = frozenset(
    {"key", "$key", "api_key", "api-key", "apikey", "access_token", "oauth_token", "token", "authorization"}
)


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a multipart form. ``file`` is an open binary file at position 0, spooled by Django."""

    name: str
    filename: str
    content_type: str
    size: int
    file: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body as read: plain fields in order, files after them."""

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    files: tuple[FilePart, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A request to the relay after authentication: the caller's credential is not in it any more.

    ``path``: percent-decoded, below ``/proxy``, with its leading slash, e.g. ``/v1/chat/completions``.
    ``query``: decoded pairs in order. ``headers``: names in lower case.
    ``body``: raw bytes of anything but multipart; ``form``: the parsed form when it was multipart.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    form: Form | None = field(default=None, repr=False)


class Demand(NamedTuple):
    """What a call can use, as far as its body shows it: what a bound rests on. Never less than the truth."""

    text: int = 0  # bytes of inline text, normalised if that is more, and its framing: never fewer than its tokens
    characters: int = 0  # text to be spoken (speech), exactly
    images: int = 0  # pictures for the model to look at: inline, or by a URL that can only be a picture's
    audio: tuple[int, ...] = ()  # inline audio and uploaded files: whole seconds each, rounded up
    hidden: bool = False  # refers to what the body does not show: files and pages by URL, PDFs, stored ids
    pictures: int = 0  # pictures to be made (n)
    size: str = ""  # of those pictures
    quality: str = ""
    limit: int | None = None  # output limit per candidate as it goes out (the client's, or the default); None: none
    candidates: int = 1  # n, best_of, candidateCount
    tier: str = ""  # a service tier the client named beyond the standard one ("priority", "flex", …)
    unbounded: str = ""  # why the limit does not bound this call: "hosted tools", "search", "unparsed audio", …
    cached: bool = False  # asks for prompt caching (cache writes may be dearer)
    least: int = 1  # no lower limit can go out (a thinking budget needs 1,024 tokens of its own)
    fields: frozenset[str] | None = None  # names of the body's fields, and of Gemini's ``generationConfig``
    messages: int = 0  # messages of the conversation, the system prompt included; 0: not counted
    described: int = 0  # tools that the provider describes to the model in words of its own
    text_only: bool = False  # the request names text as the only modality of the answer
    unseen: str = ""  # the first field that makes it ``hidden``


_NO_DEMAND = Demand()


class Asked(NamedTuple):
    """The first field of a body that asks for a capability. ``kind``: the type of its value, where it names one."""

    where: str
    kind: str = ""


_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Spooled:
    """A large body: the first ``size`` bytes of an open file, and ``tail`` behind them."""

    file: Any = field(repr=False)
    size: int
    tail: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.size + len(self.tail)

    def blocks(self) -> Iterator[bytes]:
        self.file.seek(0)
        left = self.size
        while left and (block := self.file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block
        yield self.tail


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One call, read and understood: what policy checks, what goes upstream and how its answer is observed.

    ``route``: ledger name such as ``openai.chat``; its first half is the dialect of the answer.
    ``path``: constant upstream path below the provider's base URL (never the caller's own bytes).
    ``models``: every model that may run; the first is the billed one; empty for model lists.
    ``capabilities``: all of them must be granted. ``asked``: which fields of the body ask for them.
    ``compatible``: an OpenAI-shaped endpoint (the key travels in ``Provider.openai_auth``).
    ``json``: the checked body, re-serialised (``None``: no body, or ``form``); in a file where it is large.
    ``stream``: the caller asked for server-sent events.
    ``counted``: counts against the grant's request cap (model lists and token counts do not).
    ``flavor``: how metering reads the usage: ``chat``, ``responses``, ``embeddings``, ``images``, ``speech``,
    ``transcription``, ``moderations``, ``anthropic``, ``google``, ``none``.
    ``hides_usage``: the relay asked for the stream's usage chunk, the client did not: it is kept from the client.
    ``input_characters``: characters of text in the request: the upper bound that estimates rest on.
    ``limit_paths``: where in ``json`` the output limit stands. ``demand``: what a bound of its cost rests on.
    ``tail``: index in ``json`` from which everything stands that :meth:`limited` may change.
    """

    route: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    compatible: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: bytes | Spooled | None = field(default=None, repr=False)
    form: Form | None = field(default=None, repr=False)
    stream: bool = False
    counted: bool = True
    flavor: str = "none"
    hides_usage: bool = False
    input_characters: int = 0
    limit_paths: tuple[tuple[str, ...], ...] = ()
    demand: Demand = _NO_DEMAND
    tail: int = 0
    asked: Mapping[Capability, Asked] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The billed model, or ``""``."""
        return self.models[0] if self.models else ""

    @property
    def dialect(self) -> str:
        return self.route.partition(".")[0]

    def limited(self, limit: int) -> UpstreamCall:
        """The same call with at most ``limit`` tokens of output for each candidate.

        Only the last bytes of the body change, so a large body is not parsed again.

        Raises:
            NotGranted: the call cannot go out with so low a limit (below ``demand.least``).
            ValueError: it has no output limit that could be lowered.
        """
        if self.demand.limit is None or self.json is None:
            raise ValueError(f"{self.route} has no output limit")
        lowering.refuse_too_low(limit, self.demand.least)
        if limit >= self.demand.limit:
            return self
        demand = self.demand._replace(limit=limit)
        if isinstance(self.json, Spooled):
            tail = lowering.lower(self.json.tail, self.limit_paths, self.demand.limit, limit)
            return replace(self, json=replace(self.json, tail=tail), demand=demand)
        tail = lowering.lower(self.json[self.tail :], self.limit_paths, self.demand.limit, limit)
        return replace(self, json=self.json[: self.tail] + tail, demand=demand)


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: ``raw`` are its bytes as they came, blank line included."""

    raw: bytes = field(repr=False)
    name: str = ""
    data: bytes = field(default=b"", repr=False)


class Observer(Protocol):
    """Watches one answer go by and remembers what metering needs; never touches the bytes.

    ``event`` is called for each event of a stream, ``body`` once with a non-streamed JSON answer, as far as it came
    (``refused``: it came under the status of an error), ``cut`` once with the beginning of an event whose rest never
    came.
    ``done`` turns true with the event that ends the provider's answer (``[DONE]``, ``message_stop``,
    ``response.completed`` …): usage is complete then. ``complete``: the stream may end here, as far as its dialect
    shows it. ``failed``: the answer itself says that the provider failed.
    ``hides(event)`` is true for the chunk to keep from the client.
    ``result()`` is one final answer object for metering, merged (each count is the largest of
    all reports), or ``None`` when the provider reported no usage. ``output_characters``: text that flowed so far.
    """

    @property
    def done(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def output_characters(self) -> int: ...

    @property
    def complete(self) -> bool: ...

    def event(self, event: Event) -> None: ...

    def body(self, body: bytes, *, refused: bool = False) -> None: ...

    def cut(self, data: bytes) -> None: ...

    def hides(self, event: Event) -> bool: ...

    def result(self) -> dict[str, Any] | None: ...


class Usage(NamedTuple):
    """What one call used, all tokens as integers. ``input_tokens`` includes the cached ones, whatever the provider.

    ``cost``: nano-dollars (1e-9 USD), ``None`` where no price is known. ``estimated``: the provider reported nothing.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int | None = None
    estimated: bool = False
