"""LangChain: an agent on each of its packages for the three dialects, streamed."""

from __future__ import annotations

import os
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from shared import API, DATA_URL, MODEL, PICTURE, PROMPT, TOOLS, main, read_marker


def model() -> Any:
    if API == "anthropic":
        from langchain_anthropic import ChatAnthropic

        thinking = {"type": "enabled", "budget_tokens": 1024}
        return ChatAnthropic(model=MODEL, api_key=os.environ["ANTHROPIC_AUTH_TOKEN"], thinking=thinking)
    if API == "google":
        from langchain_google_genai import ChatGoogleGenerativeAI

        base = os.environ["GOOGLE_GEMINI_BASE_URL"]
        return ChatGoogleGenerativeAI(model=MODEL, base_url=base, include_thoughts=True)
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, use_responses_api=API == "responses", streaming=True)


def answer() -> str:
    content: list[Any] = [{"type": "text", "text": PROMPT}]
    if PICTURE:
        content.append({"type": "image_url", "image_url": {"url": DATA_URL}})
    agent = create_agent(model(), tools=[read_marker] if TOOLS else [])
    last: Any = None
    for mode, data in agent.stream({"messages": [HumanMessage(content)]}, stream_mode=["messages", "values"]):
        last = data if mode == "values" else last
    return last["messages"][-1].text


main(answer)
