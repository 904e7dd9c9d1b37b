"""The catalogue: which providers and capabilities a grant can name, and how each provider is reached.

One row a provider. Nothing else in the house asks ``if provider == "openai"``: whatever differs
between providers is a column here, whatever differs between wire formats is a module in
``proxy/dialects/`` (a test holds both lists against each other).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Capability(StrEnum):
    """What a grant can allow an app to do. Everything else is refused."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    IMAGES = "images"
    AUDIO = "audio"
    MODERATION = "moderation"
    WEB = "web"
    CODE = "code"
    STATE = "state"


CAPABILITY_LABELS: dict[Capability, str] = {
    Capability.CHAT: "Chat and text generation",
    Capability.EMBEDDINGS: "Embeddings",
    Capability.IMAGES: "Image generation",
    Capability.AUDIO: "Speech and transcription",
    Capability.MODERATION: "Moderation",
    Capability.WEB: "Web search and other hosted tools that reach out (cost money)",
    Capability.CODE: "Hosted code execution and computer use (cost money)",
    Capability.STATE: "State kept in the provider account, which all apps on the key share",
}


class Auth(StrEnum):
    """Where a provider wants its key."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    API_KEY = "api-key"
    NONE = "none"

    def header(self, secret: str) -> dict[str, str]:
        """The one header that carries ``secret`` (empty for :attr:`NONE`, or when there is no secret)."""
        if self is Auth.NONE or not secret:
            return {}
        if self is Auth.BEARER:
            return {"authorization": f"Bearer {secret}"}
        return {self.value: secret}


_TEXT = frozenset({Capability.CHAT})
_OPEN = _TEXT | {Capability.EMBEDDINGS}
_ALL = frozenset(Capability)


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    ``base_url``: scheme and host (and fixed path) without a trailing slash; ``None`` means that the owner gives it.
    ``auth``: the header of the native endpoints; OpenAI-shaped endpoints use ``openai_auth``.
    ``dialects``: the wire formats that it speaks, native one first.
    ``openai_prefix``: path below the base URL under which its OpenAI-shaped endpoints live.
    ``sdk_path``: what follows ``/proxy`` in the base URL that this provider's usual SDK wants.
    ``prices``: its id in genai-prices, ``None`` where that knows no prices.
    ``stops_when_left``: it stops generating and billing a streamed text answer when the connection is closed. True only
    where that is documented; elsewhere the relay reads an answer to its end although the client has left.
    ``open_fields``: body fields that no table knows pass (servers of the owner's own); elsewhere they are refused.
    """

    id: str
    label: str
    base_url: str | None
    auth: Auth = Auth.BEARER
    openai_auth: Auth = Auth.BEARER
    dialects: tuple[str, ...] = ("openai",)
    openai_prefix: str = "/v1"
    sdk_path: str = "/v1"
    capabilities: frozenset[Capability] = _OPEN
    prices: str | None = None
    secret_required: bool = True
    open_fields: bool = False
    stops_when_left: bool = False


# ``stops_when_left`` follows https://openrouter.ai/docs/api-reference/streaming, "Stream Cancellation" (read 2026-11):
# OpenAI, Azure, Anthropic, Fireworks, Together, Cohere, xAI and DeepSeek stop processing and billing at once, for
# streamed requests only. It names AWS Bedrock, Groq, Google AI Studio, Mistral and Perplexity as going on. What
# OpenRouter itself does depends on who serves the call. Nothing was found for Cerebras, or for servers in general.
_ROWS = (
    Provider("openai", "OpenAI", "https://api.openai.com", capabilities=_ALL, prices="openai", stops_when_left=True),
    Provider(
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com",
        Auth.X_API_KEY,
        dialects=("anthropic", "openai"),
        sdk_path="",
        prices="anthropic",
        capabilities=_TEXT | {Capability.WEB, Capability.CODE, Capability.STATE},
        stops_when_left=True,
    ),
    Provider(
        "google",
        "Google Gemini",
        "https://generativelanguage.googleapis.com",
        Auth.X_GOOG_API_KEY,
        dialects=("google", "openai"),
        openai_prefix="/v1beta/openai",
        sdk_path="",
        prices="google",
        capabilities=_OPEN | {Capability.IMAGES, Capability.AUDIO, Capability.WEB, Capability.CODE, Capability.STATE},
    ),
    Provider(
        "azure",
        "Azure OpenAI",
        None,
        Auth.API_KEY,
        Auth.API_KEY,
        openai_prefix="/openai/v1",
        sdk_path="",
        capabilities=_ALL,
        prices="azure",
        stops_when_left=True,
    ),
    Provider("mistral", "Mistral", "https://api.mistral.ai", prices="mistral"),
    Provider(
        "groq",
        "Groq",
        "https://api.groq.com/openai",
        capabilities=_OPEN | {Capability.AUDIO, Capability.WEB, Capability.CODE},
        prices="groq",
    ),
    Provider(
        "deepseek", "DeepSeek", "https://api.deepseek.com", capabilities=_TEXT, prices="deepseek", stops_when_left=True
    ),
    Provider(
        "xai",
        "xAI",
        "https://api.x.ai",
        capabilities=_OPEN | {Capability.IMAGES, Capability.WEB, Capability.CODE, Capability.STATE},
        prices="x-ai",
        stops_when_left=True,
    ),
    Provider(
        "cohere",
        "Cohere",
        "https://api.cohere.com",
        openai_prefix="/compatibility/v1",
        prices="cohere",
        stops_when_left=True,
    ),
    Provider(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api",
        capabilities=_TEXT | {Capability.IMAGES, Capability.AUDIO, Capability.WEB},
        prices="openrouter",
    ),
    Provider("together", "Together", "https://api.together.xyz", prices="together", stops_when_left=True),
    Provider("fireworks", "Fireworks", "https://api.fireworks.ai/inference", prices="fireworks", stops_when_left=True),
    Provider(
        "perplexity",
        "Perplexity",
        "https://api.perplexity.ai",
        openai_prefix="",
        capabilities=_TEXT | {Capability.WEB},
        prices="perplexity",
    ),
    Provider("cerebras", "Cerebras", "https://api.cerebras.ai", capabilities=_TEXT, prices="cerebras"),
    Provider("bedrock", "Amazon Bedrock", None, openai_prefix="/openai/v1", capabilities=_TEXT, prices="aws"),
    Provider(
        "custom",
        "OpenAI-compatible server",
        None,
        capabilities=_ALL,
        secret_required=False,
        open_fields=True,
    ),
    Provider(
        "sandbox",
        "Sandbox",
        "sandbox://local",
        Auth.NONE,
        Auth.NONE,
        dialects=("openai", "anthropic", "google"),
        capabilities=_OPEN,
        secret_required=False,
        stops_when_left=True,  # it runs in this process
    ),
)

PROVIDERS: dict[str, Provider] = {row.id: row for row in _ROWS}


def choices() -> list[tuple[str, str]]:
    """Id and label of every row. Models name this function, so that a new provider is no migration."""
    return [(row.id, row.label) for row in PROVIDERS.values()]
