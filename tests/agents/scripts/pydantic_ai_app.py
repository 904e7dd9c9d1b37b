"""pydantic-ai: an agent on each of the three dialects, streamed; the tool loop is the library's."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

from pydantic_ai import Agent, BinaryContent
from shared import API, MODEL, PICTURE, PNG, PROMPT, TOOLS, main, read_marker


def model() -> Any:
    if API == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        settings = {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}
        provider = AnthropicProvider(anthropic_client=AsyncAnthropic())
        return AnthropicModel(MODEL, provider=provider, settings=settings)
    if API == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        keys = {"api_key": os.environ["GEMINI_API_KEY"], "base_url": os.environ["GOOGLE_GEMINI_BASE_URL"]}
        settings = {"google_thinking_config": {"include_thoughts": True}}
        return GoogleModel(MODEL, provider=GoogleProvider(**keys), settings=settings)
    return f"openai-{API}:{MODEL}"


async def run() -> str:
    agent = Agent(model(), tools=[read_marker] if TOOLS else [])
    picture = BinaryContent(base64.b64decode(PNG), media_type="image/png")
    async with agent.run_stream([PROMPT, picture] if PICTURE else PROMPT) as result:
        return await result.get_output()


main(lambda: asyncio.run(run()))
