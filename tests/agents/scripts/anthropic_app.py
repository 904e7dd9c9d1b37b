"""anthropic: messages with thinking, streamed; the tool loop is the library's."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, beta_tool
from shared import KIND, MODEL, PICTURE, PNG, PROMPT, main, read_marker


def answer() -> str:
    content: list[Any] = [{"type": "text", "text": PROMPT}]
    if PICTURE:
        content.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})
    body: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 2048,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [{"role": "user", "content": content}],
    }
    client = Anthropic()
    if KIND != "tools":
        with client.messages.stream(**body) as stream:
            return stream.get_final_text()
    text = ""
    for turn in client.beta.messages.tool_runner(**body, tools=[beta_tool(read_marker)], stream=True):
        text = "".join(block.text for block in turn.get_final_message().content if block.type == "text")
    return text


main(answer)
