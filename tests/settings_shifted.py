"""The tests' settings in a server whose clock is wrong: by the seconds in the file that ``TEST_CLOCK`` names.

Shifted is the clock that the ledger counts days by: the process's on SQLite, on PostgreSQL the database's too, as if
this server had one of its own (see ``Clock`` in ``test_limits_live.py``).
"""

import os
import time
from pathlib import Path

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

_file = Path(os.environ["TEST_CLOCK"])
_right = time.time_ns
time.time_ns = lambda: _right() + int(float(_file.read_text()) * 1e9)

if DATABASES["default"]["ENGINE"] == "aipassport.postgresql":
    DATABASES["default"]["OPTIONS"]["options"] += (
        f" -c search_path=shifted,pg_catalog,public -c test.clock={_file.name}"
    )
