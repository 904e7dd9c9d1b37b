"""openai-agents: an agent, streamed; the tool loop is the library's.

API: chat, responses (as the library does it by itself), or unstored (with the settings of docs/clients.md).
"""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool
from openai import AsyncOpenAI
from shared import API, MODEL, PROMPT, TOOLS, main, read_marker, responses_content


async def run() -> str:
    chat = API == "chat"
    model: Any = OpenAIChatCompletionsModel(MODEL, AsyncOpenAI()) if chat else MODEL
    unstored = ModelSettings(store=False, response_include=["reasoning.encrypted_content"])
    settings = unstored if API == "unstored" else ModelSettings()
    tools = [function_tool(read_marker)] if TOOLS else []
    agent = Agent(name="Assistant", model=model, model_settings=settings, tools=tools)
    content = responses_content()
    given: Any = PROMPT if isinstance(content, str) else [{"role": "user", "content": content}]
    result = Runner.run_streamed(agent, given)
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


main(lambda: asyncio.run(run()))
