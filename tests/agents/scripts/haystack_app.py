"""Haystack: an agent on chat completions or the Responses API, streamed; the tool loop is the library's."""

from __future__ import annotations

from typing import Annotated

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent, StreamingChunk
from haystack.tools import tool
from shared import API, MODEL, PICTURE, PNG, PROMPT, TOOLS, main
from shared import read_marker as read


@tool
def read_marker(path: Annotated[str, "The path of the file."]) -> str:
    """Reads the marker in a file."""
    return read(path)


def ignore(chunk: StreamingChunk) -> None:
    """With a callback the library streams."""


def answer() -> str:
    generator = {"chat": OpenAIChatGenerator, "responses": OpenAIResponsesChatGenerator}[API](model=MODEL)
    parts = [PROMPT, ImageContent(PNG, "image/png")] if PICTURE else [PROMPT]
    messages = [ChatMessage.from_user(content_parts=parts)]
    if not TOOLS:
        return generator.run(messages, streaming_callback=ignore)["replies"][0].text
    agent = Agent(chat_generator=generator, tools=[read_marker])
    return agent.run(messages, streaming_callback=ignore)["last_message"].text


main(answer)
