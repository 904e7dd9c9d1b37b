"""The libraries: each is a :class:`.tools.Tool` whose command runs a script of ``tests/agents/scripts``.

The script is told the kind of the case, the model and the prompt. It streams, runs the library's own tool loop, and
prints the final text, or the text of the error.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .node_rows import NODE_ROWS
from .python_rows import PYTHON_ROWS
from .tools import Tool

LIBRARIES: tuple[Tool, ...] = PYTHON_ROWS + NODE_ROWS

_ASK = "import sys, importlib.metadata; print(importlib.metadata.version(sys.argv[1]))"


def python_version(tool: Tool, programs: Path) -> str:
    """The version of the first package of ``tool``, which is installed beside ``programs``."""
    name = re.match(r"[\w.-]+", tool.package)
    assert name is not None
    command = [programs / "python", "-c", _ASK, name[0]]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
