"""LiteLLM: completion or responses, streamed. The tool loop is the one of the library's documentation."""

from __future__ import annotations

import os
from typing import Any

import litellm
from shared import API, FUNCTION, MODEL, TOOLS, called, chat_content, main, responses_content

litellm.suppress_debug_info = True


def completion() -> str:
    messages: list[Any] = [{"role": "user", "content": chat_content()}]
    more: dict[str, Any] = {"tools": [{"type": "function", "function": FUNCTION}]} if TOOLS else {}
    if API == "anthropic":
        more |= {"api_base": os.environ["ANTHROPIC_BASE_URL"], "api_key": os.environ["ANTHROPIC_AUTH_TOKEN"]}
        more |= {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}
    if API == "google":
        more |= {"api_base": os.environ["GOOGLE_GEMINI_BASE_URL"], "reasoning_effort": "low"}
    name = {"chat": "openai", "anthropic": "anthropic", "google": "gemini"}[API]
    while True:
        stream = litellm.completion(model=f"{name}/{MODEL}", messages=messages, stream=True, **more)
        message = litellm.stream_chunk_builder(list(stream), messages=messages).choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            content = called(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})


def responses() -> str:
    given: list[Any] = [{"role": "user", "content": responses_content()}]
    more: dict[str, Any] = {"tools": [{"type": "function", "strict": True, **FUNCTION}]} if TOOLS else {}
    while True:
        text, done = "", None
        for event in litellm.responses(model=f"openai/{MODEL}", input=given, stream=True, **more):
            text += event.delta if event.type == "response.output_text.delta" else ""
            done = event.response if event.type == "response.completed" else done
        assert done is not None, f"the stream ended early: {text}"
        calls = [item for item in done.output if item.type == "function_call"]
        if not calls:
            return text
        given += [item if isinstance(item, dict) else item.model_dump(exclude_none=True) for item in done.output]
        for call in calls:
            output = called(call.arguments)
            given.append({"type": "function_call_output", "call_id": call.call_id, "output": output})


main(responses if API == "responses" else completion)
