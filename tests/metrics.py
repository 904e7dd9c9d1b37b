"""Scrapes, as Prometheus makes and reads them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "scraper-token-0123456789"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """What one scrape found: ``scrape("name", label="value")`` is a sample's value, 0 where there is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"twice: {key}"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of that name that have these labels."""
        return sum(
            value
            for (known, found), value in self.samples.items()
            if known == name and labels.items() <= dict(found).items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(found)[label] for known, found in self.samples if known == name and label in dict(found)}


def scrape(server: Any, token: str = TOKEN) -> Scrape:
    answer = requests.get(f"{server.url}/metrics", headers=bearer(token), timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(answer.text)


def scraped(server: Any) -> Scrape | None:
    """The same of a server that may be between two workers."""
    try:
        return scrape(server)
    except requests.RequestException:
        return None


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def folder_of(server: Any) -> Path:
    """Where a server's workers keep their numbers."""
    variables = Path(f"/proc/{workers_of(server)[0]}/maps").read_text()
    return Path(re.findall(r"(/\S*/aipassport-metrics-\w+)/", variables)[0])


def workers_of(server: Any) -> list[int]:
    """The process ids of a server's workers."""
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


def kill_worker(server: Any, pid: int, sig: int = signal.SIGKILL) -> None:
    assert pid in workers_of(server)
    os.kill(pid, sig)
