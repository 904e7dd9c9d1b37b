"""One process of ``hot.py``: so many greenlets that admit and settle. Arguments: a file of tokens, callers, seconds."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from pathlib import Path  # noqa: E402

import django  # noqa: E402
import gevent  # noqa: E402

django.setup()

from grants import ledger, policy, tokens  # noqa: E402
from grants.pace import release_connection  # noqa: E402

_DONE = ledger.Settlement("ok", 200, 1000, 10, 10, cost=100)


def main() -> None:
    file, callers, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    claims = [tokens.verify(token) for token in json.loads(file.read_text())]
    worker = uuid.uuid4()
    ledger.beat(worker)
    release_connection()
    took: list[float] = []
    print("ready", flush=True)
    sys.stdin.readline()
    began, until = time.process_time(), time.perf_counter() + seconds

    def call_again(number: int) -> None:
        while time.perf_counter() < until:
            at = claims[number % len(claims)]
            number += callers
            ids = uuid.uuid4(), at.jti, at.kid, worker, "openai.chat"
            entry = ledger.Entry(*ids, want=100_000, least=100_000, tokens=100)
            sent = time.perf_counter()
            ledger.admit(policy.read(at), entry)
            ledger.settle(entry.id, _DONE, grant=at.grant)
            took.append(time.perf_counter() - sent)

    gevent.joinall([gevent.spawn(call_again, number) for number in range(callers)], raise_error=True)
    print(json.dumps({"took": took, "cpu": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    main()
