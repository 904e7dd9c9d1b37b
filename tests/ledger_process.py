"""A process of its own that admits and settles until it is told that nothing more will pass. See test_limits.py."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import uuid
from typing import Any

import django

django.setup()

from django.db import connection  # noqa: E402

from grants import ledger, policy, tokens  # noqa: E402


def run(order: dict[str, Any], seed: int, done: dict[str, int]) -> None:
    dice = random.Random(seed)
    claims = tokens.verify(order["token"])
    admitted = spent = 0
    while True:
        want = dice.randint(1, order.get("want", 0) or 1) if "want" in order else 0
        entry = ledger.Entry(
            *(uuid.uuid4(), claims.jti, claims.kid, uuid.UUID(order["worker"]), "openai.chat"),
            want=want,
            least=min(want, order.get("least", 0)),
        )
        try:
            reserved = ledger.admit(policy.read(claims), entry).reserved
        except ledger.Full as full:
            if full.final:
                break
            time.sleep(0.002)
            continue
        except ledger.Stale:  # it changed between the refusal and the look at it
            continue
        cost = dice.randint(min(1, reserved), reserved)
        time.sleep(dice.random() * 0.01)
        ledger.settle(entry.id, ledger.Settlement("ok", 200, cost=cost), grant=claims.grant)
        admitted, spent = admitted + 1, spent + cost
    done["admitted"] += admitted
    done["spent"] += spent
    connection.close()


def main() -> None:
    order = json.loads(sys.argv[1])
    done = {"admitted": 0, "spent": 0}
    print("ready", flush=True)
    sys.stdin.read()
    threads = [
        threading.Thread(target=run, args=(order, order["seed"] * 100 + number, done))
        for number in range(order["threads"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
