"""Settings. The only reader of the environment: every variable is read here once, with its type and default.

``.env`` beside ``manage.py`` is read first; the environment wins over it. ``.env.example`` lists everything.
"""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.core.exceptions import ImproperlyConfigured

from aipassport import __version__
from aipassport.environment import Env, ca_bundle_problem, in_url
from aipassport.postgresql import options as postgresql
from aipassport.theme import UNFOLD  # noqa: F401  django-unfold reads this setting
from grants.crypto import parse_key

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
env.read_env(BASE_DIR / ".env")  # never overwrites what the environment says

# Where it is served

DEBUG = env.bool("AIPASSPORT_DEBUG", default=False)
HOST = env.str("HOST", default="127.0.0.1").strip("[]")
PORT = env.int("PORT", default=8000)
if PORT > 65535:
    raise ImproperlyConfigured("PORT must be at most 65535.")
WEB_CONCURRENCY = env.int("WEB_CONCURRENCY", default=2)
AIPASSPORT_URL = env.str("AIPASSPORT_URL", default=f"http://{in_url(HOST)}:{PORT}").rstrip("/")
try:
    _url = urlsplit(AIPASSPORT_URL)
    _url_is_usable = _url.scheme in ("http", "https") and bool(_url.hostname) and (_url.port or 1) > 0
except ValueError:
    _url_is_usable = False
if not _url_is_usable or _url.username is not None or _url.query or _url.fragment:
    raise ImproperlyConfigured("AIPASSPORT_URL must have the form https://aipassport.example.")
if _url.path:
    raise ImproperlyConfigured(
        f"AIPASSPORT_URL has a path ({_url.path}), and AIPassport is served at the root of its host only: "
        "give it a host name of its own, such as https://aipassport.example."
    )
_host = in_url(_url.hostname or HOST)
_LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.list("AIPASSPORT_ALLOWED_HOSTS", default=[_host, *_LOCAL_HOSTS])
CSRF_TRUSTED_ORIGINS = [f"{_url.scheme}://{_url.netloc}"]
CSRF_FAILURE_VIEW = "aipassport.pages.csrf_failure"
TRUST_PROXY = env.bool("AIPASSPORT_TRUST_PROXY", default=False)
_https = _url.scheme == "https"

# Secrets: none has a default

SECRET_KEY = env.str("AIPASSPORT_SECRET_KEY", default="")
AIPASSPORT_ENCRYPTION_KEYS = env.list("AIPASSPORT_ENCRYPTION_KEYS", default=[])
if len(SECRET_KEY) < 32 or not AIPASSPORT_ENCRYPTION_KEYS:
    raise ImproperlyConfigured(
        "AIPASSPORT_SECRET_KEY (at least 32 characters) and AIPASSPORT_ENCRYPTION_KEYS must be set. "
        "`make run` writes a .env with fresh ones."
    )
for _key in AIPASSPORT_ENCRYPTION_KEYS:
    try:
        parse_key(_key)
    except ValueError as error:
        raise ImproperlyConfigured(f"AIPASSPORT_ENCRYPTION_KEYS: {error}") from None


def _derived(purpose: bytes) -> str:
    """A key of its own for ``purpose``, from the secret key (RFC 5869)."""
    return HKDF(SHA256(), 32, None, b"aipassport " + purpose).derive(SECRET_KEY.encode()).hex()


def _rate(name: str, default: str) -> tuple[int, int]:
    """``20/min`` as (requests, seconds)."""
    count, _, unit = env.str(name, default=default).partition("/")
    periods = {"sec": 1, "min": 60, "hour": 3600, "day": 86_400}
    if not count.isdecimal() or int(count) < 1 or unit not in periods:
        raise ImproperlyConfigured(f"{name} must have the form 20/min (sec, min, hour, day).")
    return int(count), periods[unit]


# The relay

AIPASSPORT_AUDIENCE = f"{AIPASSPORT_URL}/proxy"
AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = env.bool("AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS", default=False)
AIPASSPORT_UPSTREAM_PROXY = env.str("AIPASSPORT_UPSTREAM_PROXY", default="")
AIPASSPORT_UPSTREAM_CA_BUNDLE = env.str("AIPASSPORT_UPSTREAM_CA_BUNDLE", default="")
if _problem := ca_bundle_problem(AIPASSPORT_UPSTREAM_CA_BUNDLE):
    raise ImproperlyConfigured(f"AIPASSPORT_UPSTREAM_CA_BUNDLE: {_problem}.")
AIPASSPORT_PRICES_URL = env.str("AIPASSPORT_PRICES_URL", default="")
AIPASSPORT_CONNECT_TIMEOUT = env.float("AIPASSPORT_CONNECT_TIMEOUT", default=10.0)
AIPASSPORT_READ_TIMEOUT = env.float("AIPASSPORT_READ_TIMEOUT", default=600.0)
AIPASSPORT_MAX_BODY_BYTES = env.int("AIPASSPORT_MAX_BODY_BYTES", default=32 * 1024 * 1024)
AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT = env.int("AIPASSPORT_MAX_BODY_BYTES_IN_FLIGHT", default=256 * 1024 * 1024)
AIPASSPORT_BODY_TIMEOUT = env.float("AIPASSPORT_BODY_TIMEOUT", default=60.0)
AIPASSPORT_ABANDONED_SECONDS = env.float("AIPASSPORT_ABANDONED_SECONDS", default=600.0)
AIPASSPORT_MAX_ABANDONED_CALLS = env.int("AIPASSPORT_MAX_ABANDONED_CALLS", default=256)
AIPASSPORT_LOST_AFTER = env.int("AIPASSPORT_LOST_AFTER", default=60)
GRACEFUL_TIMEOUT = env.int("AIPASSPORT_GRACEFUL_TIMEOUT", default=30)

# The database: SQLite in the tree, or whatever DATABASE_URL names

DATABASE_WHILE_SERVING: dict[str, object] = {}  # options that a server adds: see aipassport/gunicorn.py
_database = env.db_url("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'aipassport.sqlite3'}")
if _database["ENGINE"] == "django.db.backends.sqlite3":
    _synchronous = env.str("AIPASSPORT_SQLITE_SYNCHRONOUS", default="FULL")
    if _synchronous not in ("FULL", "NORMAL"):
        raise ImproperlyConfigured("AIPASSPORT_SQLITE_SYNCHRONOUS must be FULL or NORMAL.")
    _database |= {
        "ENGINE": "aipassport.sqlite",
        # A relative path would be another database in each working directory.
        "NAME": _database["NAME"] if _database["NAME"] == ":memory:" else str(BASE_DIR / _database["NAME"]),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={_synchronous};",
            "cached_statements": 32,  # for each of many connections; Python's 128 fill for hours with what pages ask
        },
    }
elif _database["ENGINE"] == "django.db.backends.postgresql":
    _given = _database.get("OPTIONS", {})
    _database |= {
        "ENGINE": "aipassport.postgresql",
        "OPTIONS": postgresql.connecting(
            _given,
            pool_size=env.int("AIPASSPORT_DATABASE_POOL_SIZE", default=4),
            pool_timeout=env.float("AIPASSPORT_DATABASE_POOL_TIMEOUT", default=5.0),
        ),
    }
    _patience = env.int("AIPASSPORT_STATEMENT_TIMEOUT", default=30)
    DATABASE_WHILE_SERVING = postgresql.serving(_given, statement_timeout=_patience)
else:
    raise ImproperlyConfigured("DATABASE_URL must name SQLite or PostgreSQL.")
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# E-mail, for what owners are told; none is sent without a server to send it through

_email_url = env.str("AIPASSPORT_EMAIL_URL", default="")
AIPASSPORT_SENDS_EMAIL = bool(_email_url)
try:
    _email = env.email_url_config(_email_url or "dummymail://")
except (ValueError, KeyError, ImproperlyConfigured):
    raise ImproperlyConfigured(
        "AIPASSPORT_EMAIL_URL must have the form smtp+tls://user:password@mail.example:587."
    ) from None
EMAIL_BACKEND, EMAIL_FILE_PATH = _email["EMAIL_BACKEND"], _email["EMAIL_FILE_PATH"]
EMAIL_HOST, EMAIL_PORT = _email["EMAIL_HOST"], _email["EMAIL_PORT"] or 25
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _email["EMAIL_HOST_USER"] or "", _email["EMAIL_HOST_PASSWORD"] or ""
EMAIL_USE_TLS, EMAIL_USE_SSL = _email.get("EMAIL_USE_TLS", False), _email.get("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("AIPASSPORT_EMAIL_FROM", default=f"aipassport@{_url.hostname}")
if any(not char.isprintable() for char in DEFAULT_FROM_EMAIL):
    raise ImproperlyConfigured("AIPASSPORT_EMAIL_FROM must be one line.")

# Django

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "aipassport",
    "grants",
]
MIDDLEWARE = [
    "aipassport.middleware.relay_lane",
    "aipassport.middleware.security_headers",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "aipassport.middleware.sign_ins",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "aipassport.urls"
WSGI_APPLICATION = "aipassport.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = ["grants.logins.ThrottledBackend"]
PASSWORD_HASHERS = ["aipassport.hashers.PBKDF2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_I18N = False
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # straight from the packages: nothing to collect before the first start

# Security

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = _https and env.bool("AIPASSPORT_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^health$", r"^ready$"]
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # HSTS for subdomains and preloading are not ours to claim
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_PROXY else None
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 128 * 1024  # of pages and the API, which parse in the worker; the relay has its own limit
CORS_URLS_REGEX = r"^/api/.*$"
CORS_EXPOSE_HEADERS = ["retry-after", "www-authenticate"]
CORS_ALLOWED_ORIGINS = env.list("AIPASSPORT_CORS_ALLOWED_ORIGINS", default=[])

# REST

REST_FRAMEWORK = {  # what a view does not say is the owners'
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "grants.api.authentication.OwnerTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["grants.api.authentication.IsOwner"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["grants.api.parsers.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "grants.api.parsers.OneFormat",
    "DEFAULT_PAGINATION_CLASS": "grants.api.pagination.NewestFirst",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "grants.api.errors.handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "AIPassport",
    "DESCRIPTION": "Delegated AI access: grants, tokens, and the trail of both.",
    "VERSION": __version__,
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "TAGS": [
        {"name": "apps", "description": "Ask for a grant, collect tokens, ask about them. No Authorization header."},
        {"name": "login", "description": "A password becomes owner tokens."},
        {"name": "grants", "description": "Owners decide, and take back."},
        {"name": "keys", "description": "What owners can grant with."},
        {"name": "trail", "description": "What happened."},
        {"name": "preferences", "description": "What you are told, and how."},
    ],
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},  # no picture from elsewhere
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "ENUM_NAME_OVERRIDES": {"ChannelEnum": "grants.models.Notice.Channel"},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": _derived(b"owner tokens"),
    "ISSUER": AIPASSPORT_URL,
    "AUDIENCE": f"{AIPASSPORT_URL}/api",
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=1),
    "AUTH_TOKEN_CLASSES": ["grants.api.authentication.OwnerAccessToken"],
    "LEEWAY": 90,  # seconds: clocks of several machines
    "CHECK_REVOKE_TOKEN": True,  # a changed password ends them
}
AIPASSPORT_RATES = {  # requests and seconds, of one address unless said otherwise
    "grant-requests": _rate("AIPASSPORT_THROTTLE_GRANT_REQUESTS", "20/min"),
    "tokens": _rate("AIPASSPORT_THROTTLE_TOKENS", "120/min"),
    "introspect": _rate("AIPASSPORT_THROTTLE_INTROSPECT", "300/min"),
    "revoke": _rate("AIPASSPORT_THROTTLE_REVOKE", "300/min"),
    "refresh": _rate("AIPASSPORT_THROTTLE_REFRESH", "60/min"),
    # Failed attempts to sign in: of a network, of an account from a network, of an account, of a known browser
    "login": _rate("AIPASSPORT_THROTTLE_LOGIN", "10/min"),
    "login-user": _rate("AIPASSPORT_THROTTLE_LOGIN_USER", "30/hour"),
    "login-account": _rate("AIPASSPORT_THROTTLE_LOGIN_ACCOUNT", "100/hour"),
    "login-browser": _rate("AIPASSPORT_THROTTLE_LOGIN_BROWSER", "30/hour"),
}

# Eyes: metrics where a guard for them is set, traces where they are asked for

AIPASSPORT_METRICS_TOKEN = env.str("AIPASSPORT_METRICS_TOKEN", default="")
if AIPASSPORT_METRICS_TOKEN and len(AIPASSPORT_METRICS_TOKEN) < 16:
    raise ImproperlyConfigured("AIPASSPORT_METRICS_TOKEN must have at least 16 characters.")
try:
    AIPASSPORT_METRICS_ADDRESSES = [
        ip_network(address.strip()) for address in env.list("AIPASSPORT_METRICS_ADDRESSES", default=[])
    ]
except ValueError as error:
    raise ImproperlyConfigured(f"AIPASSPORT_METRICS_ADDRESSES: {error}") from None
AIPASSPORT_METRICS = bool(AIPASSPORT_METRICS_TOKEN or AIPASSPORT_METRICS_ADDRESSES)
AIPASSPORT_TRACES = env.bool("AIPASSPORT_TRACES", default=False)
if AIPASSPORT_TRACES and (find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None):
    raise ImproperlyConfigured("AIPASSPORT_TRACES needs OpenTelemetry: pip install '.[otel]'.")

# Logs: to standard error; never a token, key, prompt or completion

LOG_FORMAT = env.str("AIPASSPORT_LOG_FORMAT", default="line")
if LOG_FORMAT not in ("line", "json"):
    raise ImproperlyConfigured("AIPASSPORT_LOG_FORMAT must be line or json.")
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")
LOG_LINE = "%(asctime)s %(levelname)s %(name)s %(message)s"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": LOG_LINE},
        "json": {"()": "aipassport.logs.JSONFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # urllib3 at DEBUG would log upstream paths; requests' own chatter helps nobody here; the pool tells of every loan
    "loggers": {
        "urllib3": {"level": "INFO"},
        "django.server": {"level": "INFO"},
        "psycopg.pool": {"level": "WARNING"},
    },
}
