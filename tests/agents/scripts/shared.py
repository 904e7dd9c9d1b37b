"""What the scripts of the Python libraries share: what is asked for, the one tool, a picture, how a script ends.

Arguments: the API (chat, responses, unstored, anthropic or google), the kind of the case (plain, tools or
picture), the model, the prompt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

API, KIND, MODEL, PROMPT = sys.argv[1:]
TOOLS, PICTURE = KIND == "tools", KIND == "picture"

# A PNG of one pixel, base64.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA_URL = f"data:image/png;base64,{PNG}"


def read_marker(path: str) -> str:
    """Reads the marker in a file.

    Args:
        path: The path of the file.
    """
    return Path(path).read_text()


SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string", "description": "The path of the file."}},
    "required": ["path"],
    "additionalProperties": False,
}
FUNCTION = {"name": "read_marker", "description": "Reads the marker in a file.", "parameters": SCHEMA}


def called(arguments: str) -> str:
    """The result of a tool call with ``arguments``, which are JSON: for libraries that leave the call to the app."""
    return read_marker(**json.loads(arguments))


def chat_content() -> Any:
    """The prompt, in the form of OpenAI's chat completions."""
    picture = {"type": "image_url", "image_url": {"url": DATA_URL}}
    return [{"type": "text", "text": PROMPT}, picture] if PICTURE else PROMPT


def responses_content() -> Any:
    """The prompt, in the form of the Responses API."""
    picture = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}
    return [{"type": "input_text", "text": PROMPT}, picture] if PICTURE else PROMPT


def main(answer: Callable[[], str]) -> None:
    """Print the final text of ``answer``; of an error its text, and end with code 1."""
    try:
        print(answer())
    except Exception as error:  # noqa: BLE001 - whatever the library raises is the result
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
