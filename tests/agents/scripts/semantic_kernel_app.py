"""Semantic Kernel: an agent on chat completions or the Responses API, streamed; the tool loop is the library's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from semantic_kernel.agents import ChatCompletionAgent, OpenAIResponsesAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.contents import AuthorRole, ChatMessageContent, ImageContent, TextContent
from semantic_kernel.functions import kernel_function
from shared import API, DATA_URL, MODEL, PICTURE, PROMPT, TOOLS, main
from shared import read_marker as read


class Files:
    @kernel_function(name="read_marker", description="Reads the marker in a file.")
    def read_marker(self, path: Annotated[str, "The path of the file."]) -> str:
        return read(path)


def agent() -> Any:
    more: dict[str, Any] = {"name": "Assistant", "plugins": [Files()] if TOOLS else []}
    if API == "chat":
        return ChatCompletionAgent(service=OpenAIChatCompletion(ai_model_id=MODEL), **more)
    client = OpenAIResponsesAgent.create_client(ai_model_id=MODEL)
    return OpenAIResponsesAgent(ai_model_id=MODEL, client=client, store_enabled=False, **more)


async def run() -> str:
    items: list[Any] = [TextContent(text=PROMPT)]
    if PICTURE:
        items.append(ImageContent(data_uri=DATA_URL))
    message = ChatMessageContent(role=AuthorRole.USER, items=items)
    text = ""
    async for part in agent().invoke_stream(message):
        text += str(part.content)
    return text


main(lambda: asyncio.run(run()))
