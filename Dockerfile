# The tests run on this version; 3.12 and 3.13 are locked for, too.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock .
# What is locked, as wheels: nothing is compiled, nothing is fetched that has no hash here.
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements.lock
COPY LICENSE manage.py /app/
COPY aipassport /app/aipassport
COPY grants /app/grants
COPY proxy /app/proxy
COPY templates /app/templates
# The file system is read-only later on, and bytecode cannot be written then.
RUN python -m compileall -q /app

FROM python:${PYTHON}-slim-bookworm
# Only for SQLite. A named volume takes its owner from here.
RUN install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/aipassport.sqlite3
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Any answer but an error of the server's own: whoever narrows AIPASSPORT_ALLOWED_HOSTS gets 400 here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/health'); raise SystemExit(c.getresponse().status >= 500)"]
CMD ["python", "-m", "gunicorn", "-c", "python:aipassport.gunicorn"]
