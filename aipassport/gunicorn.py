"""How gunicorn serves this: ``gunicorn -c python:aipassport.gunicorn aipassport.wsgi``.

gevent workers: an open stream costs a greenlet, not a thread. The standard library is patched before anything else is
imported: Django's connections and psycopg decide at import whether a greenlet counts as a thread.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402

from aipassport import output, settings  # noqa: E402
from aipassport.environment import in_url  # noqa: E402
from aipassport.logs import JSONFormatter  # noqa: E402
from aipassport.resolver import Resolver  # noqa: E402
from proxy import metrics_folder  # noqa: E402

_formatter = JSONFormatter() if settings.LOG_FORMAT == "json" else logging.Formatter(settings.LOG_LINE)
output.install(_formatter)  # before any logger keeps a reference to sys.stderr
gevent.config.resolver = Resolver
settings.DATABASES["default"].setdefault("OPTIONS", {}).update(settings.DATABASE_WHILE_SERVING)

wsgi_app = "aipassport.wsgi:application"
bind = f"{in_url(settings.HOST)}:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "aipassport.worker.Worker"
worker_connections = 4000
if not 0 <= settings.AIPASSPORT_MAX_ABANDONED_CALLS <= worker_connections // 2:  # each holds one of these
    raise ImproperlyConfigured("AIPASSPORT_MAX_ABANDONED_CALLS must be between 0 and 2000.")
preload_app = False
keepalive = 75
timeout = 60
graceful_timeout = settings.GRACEFUL_TIMEOUT
control_socket_disable = True
proc_name = "aipassport"
forwarder_headers = ""  # else a header of the caller's own, SCRIPT_NAME, moves its path past a reverse proxy's rules
secure_scheme_headers: dict[str, str] = {}  # what a proxy says of the scheme is Django's: AIPASSPORT_TRUST_PROXY
if settings.LOG_FORMAT == "json":
    logger_class = "aipassport.logs.JSONLogger"
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  heartbeats of workers, no data

# Where the workers keep their metrics for each other, in memory if there is such a place; prometheus_client is told by
# its own variable, before a worker imports it.
_metrics = metrics_folder.new_name(Path(worker_tmp_dir or tempfile.gettempdir()))
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={_metrics}"] if settings.AIPASSPORT_METRICS else []


_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*")


def without_tokens(record: logging.LogRecord) -> bool:
    """gunicorn quotes the lines that it cannot read, and a token may stand in one."""
    record.msg, record.args = _TOKEN.sub("…", record.getMessage()), ()
    return True


_SET_ASIDE = 4  # full collections


def settle_in() -> None:
    """Load what the first requests would, and tell the garbage collector that what is loaded stays.

    A full collection looks at every object there is, 50 ms and more of them, while every stream of the worker waits.
    What survives the first few is what requests have loaded since. (Cycles among that are never collected: a little.)
    """
    from django.urls import get_resolver

    _ = get_resolver().url_patterns
    left = _SET_ASIDE

    def set_aside(phase: str, info: dict[str, int]) -> None:
        nonlocal left
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()
            left -= 1
            if not left:
                gc.callbacks.remove(set_aside)

    gc.callbacks.append(set_aside)
    gc.collect()


def on_starting(server: Any) -> None:
    if settings.AIPASSPORT_METRICS:
        metrics_folder.make(_metrics, server.cfg.uid, server.cfg.gid)


def on_exit(server: Any) -> None:
    metrics_folder.remove(_metrics)


def child_exit(server: Any, worker: Any) -> None:
    """In the master, which must not end for it: what the worker counted is kept, how it stood is not."""
    if settings.AIPASSPORT_METRICS:
        try:
            metrics_folder.bury(_metrics, worker.pid)
        except Exception:
            server.log.exception("the metrics of worker %s could not be kept", worker.pid)


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker: what it has not written yet. The master says so too, of one that it finds gone."""
    if worker.pid != os.getpid():
        return
    from proxy.telemetry import logs

    logs.write()
    if settings.AIPASSPORT_METRICS:
        from proxy.telemetry import metrics

        metrics.publish()


def post_worker_init(worker: Any) -> None:
    """Let the watch see that this worker is told to go: open streams get their grace, then an in-band error.

    It begins here, not with the first call: what owners are told goes out of a server that relays nothing as well.
    """
    from django.db import DatabaseError, InterfaceError

    from grants.pace import release_connection
    from proxy.telemetry import logs
    from proxy.watch import INTERVAL, every, watch

    worker.log.error_log.addFilter(without_tokens)
    settle_in()
    logs.hold()
    every(INTERVAL, logs.write, "aipassport-lines")
    if settings.AIPASSPORT_METRICS:
        from proxy.telemetry import metrics

        metrics.share(_metrics)
        every(INTERVAL, metrics.publish, "aipassport-metrics")
    watch.drain_when(lambda: not worker.alive)
    try:
        watch.ensure_running()
    except (DatabaseError, InterfaceError):
        worker.log.warning("the database does not answer yet; the watch begins with the first call")
    finally:
        release_connection()
