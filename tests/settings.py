"""The product's settings, with secrets of the tests' own: a clone without ``.env`` can be tested."""

import os

os.environ.setdefault("AIPASSPORT_SECRET_KEY", "secret of the tests, never of a deployment")
os.environ.setdefault("AIPASSPORT_ENCRYPTION_KEYS", "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=")
os.environ["AIPASSPORT_URL"] = "http://testserver"
os.environ.setdefault("AIPASSPORT_ALLOWED_HOSTS", "testserver,localhost,127.0.0.1")

from aipassport.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed; the product's own are Django's defaults
