"""How work of a few milliseconds in the server's own process stays work of a few milliseconds."""

from __future__ import annotations

import threading
import time

# Held while a body is parsed in this process, and until others have run: several at once would add up.
one_at_a_time = threading.Lock()


def let_others_run() -> None:
    """Let every other greenlet go on. ``sleep(0)`` does not: gevent runs 50 such ones before it looks at sockets."""
    time.sleep(0.000_001)
