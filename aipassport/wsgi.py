import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aipassport.settings")
application = get_wsgi_application()

from proxy import telemetry  # noqa: E402

telemetry.start()
