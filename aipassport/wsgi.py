"""What the server calls."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponseBase

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aipassport.settings")
django.setup(set_prefix=False)

from aipassport.middleware import is_relayed, relay  # noqa: E402
from proxy import telemetry  # noqa: E402


class Application(WSGIHandler):
    """Django's, but a relayed call goes straight to its view.

    It passes no middleware anyway (``relay_lane``), and needs none of the signals around a request of the desk: they
    look for database connections, which the relay gives back by itself.
    """

    def __call__(self, environ: dict[str, Any], start_response: Any) -> HttpResponseBase:
        if not is_relayed(environ["PATH_INFO"]):
            return super().__call__(environ, start_response)
        response = relay(self.request_class(environ))
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.headers.items()))
        return response


application = Application()
telemetry.start()
