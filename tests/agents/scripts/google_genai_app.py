"""google-genai: a chat with thoughts, streamed; the tool loop is the library's (automatic function calling)."""

from __future__ import annotations

import base64
from typing import Any

from google import genai
from google.genai import types
from shared import MODEL, PICTURE, PNG, PROMPT, TOOLS, main, read_marker


def answer() -> str:
    contents: list[Any] = [PROMPT]
    if PICTURE:
        contents.append(types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png"))
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True), tools=[read_marker] if TOOLS else None
    )
    client = genai.Client()  # it is closed when nothing refers to it any more
    chat = client.chats.create(model=MODEL, config=config)
    parts = (part for chunk in chat.send_message_stream(contents) for part in chunk.parts or ())
    return "".join(part.text for part in parts if part.text and not part.thought)


main(answer)
