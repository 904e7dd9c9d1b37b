"""Asks the vulnerability service about everything in requirements.lock. Fails on what it knows, not on its silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_ASK = ["-r", "requirements.lock", "--disable-pip", "--format", "json", "--progress-spinner", "off"]


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", *_ASK]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        dependencies = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("The vulnerability service could not be asked: nothing is known about what is locked.")
        return 0
    asked = [item for item in dependencies if "skip_reason" not in item]
    holes = [(item, hole) for item in asked for hole in item["vulns"]]
    for item, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{item['name']} {item['version']}: {hole['id']}, fixed in {fixed}")
    print(f"{len(asked)} of {len(dependencies)} locked packages could be asked about; {len(holes)} known holes.")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
