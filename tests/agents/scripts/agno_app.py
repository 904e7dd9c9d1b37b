"""Agno: an agent on each of the three dialects, streamed; the tool loop is the library's."""

from __future__ import annotations

import base64
import os
from typing import Any

from agno.agent import Agent
from agno.media import Image
from shared import API, MODEL, PICTURE, PNG, PROMPT, TOOLS, main, read_marker


def model() -> Any:
    if API == "anthropic":
        from agno.models.anthropic import Claude

        thinking = {"type": "enabled", "budget_tokens": 1024}
        return Claude(id=MODEL, thinking=thinking, max_tokens=2048)
    if API == "google":
        from agno.models.google import Gemini

        return Gemini(id=MODEL, api_key=os.environ["GEMINI_API_KEY"], include_thoughts=True)
    from agno.models.openai import OpenAIChat, OpenAIResponses

    if API == "chat":
        return OpenAIChat(id=MODEL)
    return OpenAIResponses(id=MODEL, store=False)  # for a model that reasons, its default is to store


def answer() -> str:
    agent = Agent(model=model(), tools=[read_marker] if TOOLS else None, telemetry=False)
    images = [Image(content=base64.b64decode(PNG), mime_type="image/png")] if PICTURE else None
    text, error = "", ""
    for event in agent.run(PROMPT, images=images, stream=True):
        if event.event == "RunError":
            error = str(event.content)
        elif event.event == "RunContent":
            text += event.content or ""
    if error:
        raise RuntimeError(error)
    return text


main(answer)
