"""How gunicorn serves this: ``gunicorn -c python:aipassport.gunicorn aipassport.wsgi``.

gevent workers: an open stream costs a greenlet, not a thread. The standard library is patched before anything else is
imported: Django's connections and psycopg decide at import whether a greenlet counts as a thread.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
from typing import Any  # noqa: E402

from aipassport import settings  # noqa: E402

wsgi_app = "aipassport.wsgi:application"
bind = f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "gevent"
worker_connections = 4000
preload_app = False
keepalive = 75
timeout = 60
graceful_timeout = settings.GRACEFUL_TIMEOUT
control_socket_disable = True
proc_name = "aipassport"
forwarder_headers = ""  # else a header of the caller's own, SCRIPT_NAME, moves its path past a reverse proxy's rules
secure_scheme_headers: dict[str, str] = {}  # what a proxy says of the scheme is Django's: AIPASSPORT_TRUST_PROXY
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  heartbeats of workers, no data


_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*")


def without_tokens(record: logging.LogRecord) -> bool:
    """gunicorn quotes the lines that it cannot read, and a token may stand in one."""
    record.msg, record.args = _TOKEN.sub("…", record.getMessage()), ()
    return True


def post_worker_init(worker: Any) -> None:
    """Let the watch see that this worker is told to go: open streams get their grace, then an in-band error."""
    from proxy.watch import watch

    worker.log.error_log.addFilter(without_tokens)
    watch.drain_when(lambda: not worker.alive)
