"""openai: chat completions or the Responses API, streamed. The tool loop is the one of the library's documentation."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from shared import API, FUNCTION, MODEL, TOOLS, called, chat_content, main, responses_content


def chat() -> str:
    messages: list[Any] = [{"role": "user", "content": chat_content()}]
    more: dict[str, Any] = {"tools": [{"type": "function", "function": FUNCTION | {"strict": True}}]} if TOOLS else {}
    while True:
        with OpenAI().chat.completions.stream(model=MODEL, messages=messages, **more) as stream:
            message = stream.get_final_completion().choices[0].message
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
        with OpenAI().responses.stream(model=MODEL, input=given, **more) as stream:
            answer = stream.get_final_response()
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return answer.output_text
        given += answer.output
        for call in calls:
            output = called(call.arguments)
            given.append({"type": "function_call_output", "call_id": call.call_id, "output": output})


main({"chat": chat, "responses": responses}[API])
