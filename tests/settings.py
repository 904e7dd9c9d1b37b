"""The product's settings, with secrets of the tests' own: a clone without ``.env`` can be tested.

The test database is a file, so that real server processes can share it with the tests.
"""

import os
import tempfile

os.environ.setdefault("AIPASSPORT_SECRET_KEY", "secret of the tests, never of a deployment")
os.environ.setdefault("AIPASSPORT_ENCRYPTION_KEYS", "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=")
os.environ.setdefault("AIPASSPORT_SQLITE_SYNCHRONOUS", "NORMAL")
os.environ["AIPASSPORT_URL"] = "http://testserver"
os.environ["AIPASSPORT_ALLOWED_HOSTS"] = "testserver,localhost,127.0.0.1"

from aipassport.settings import *  # noqa: F403
from aipassport.settings import DATABASES

if DATABASES["default"]["ENGINE"] == "aipassport.sqlite":
    _folder = tempfile.TemporaryDirectory(prefix="aipassport-test-")
    DATABASES["default"]["TEST"] = {"NAME": os.path.join(_folder.name, "test.sqlite3")}

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed; the product's own are Django's defaults
