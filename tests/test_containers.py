"""Dockerfile and compose.yaml keep what they promise, as far as that can be told without an engine; and the server
really runs under what they impose."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from .live import ROOT, environment, eventually, free_port, server

BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = ("aipassport", "migrate")


def instructions(name: str) -> list[str]:
    """The arguments of each such instruction of the Dockerfile, continued lines joined."""
    text = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^\s*{name}\s+(.*)$", text, re.MULTILINE)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)


# The files


def test_the_dockerfile_has_no_complaint_of_hadolints() -> None:
    done = run(str(BIN / "hadolint"), "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_yaml_keeps_to_the_compose_specification() -> None:
    done = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nCMD ")
    assert {SERVICES[name]["user"] for name in OURS} == {user}


def test_the_image_installs_what_is_locked_and_nothing_else() -> None:
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert len(installs) == 1
    assert "--require-hashes --only-binary=:all: -r requirements.lock" in installs[0]
    assert not re.search(r"apt-get|curl|wget|^ADD", DOCKERFILE, re.MULTILINE)


def test_the_builder_sees_the_program_and_no_secret() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert let_in == copied
    assert all((ROOT / name).exists() for name in let_in)
    assert not re.search(r"SECRET|PASSWORD|ENCRYPTION", DOCKERFILE)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_read_only_without_capabilities_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    assert "privileged" not in service
    assert "cap_add" not in service


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_each_service_that_stays_is_watched(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert "curl" not in str(SERVICES[name]["healthcheck"])


def test_migrations_run_once_before_anything_serves() -> None:
    assert SERVICES["migrate"]["command"] == ["python", "manage.py", "migrate", "--noinput"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert SERVICES["aipassport"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["nginx"]["depends_on"]["aipassport"]["condition"] == "service_healthy"


def test_secrets_come_from_the_env_file_and_none_is_written_down() -> None:
    assert all(SERVICES[name]["env_file"] == ".env" for name in OURS)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", name) or "@" in value:
                assert "${POSTGRES_PASSWORD:?" in value


def test_only_nginx_can_be_reached_and_the_database_only_by_aipassport() -> None:
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["nginx"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert {name for name in SERVICES if "database" in SERVICES[name]["networks"]} == {"database", *OURS}


def test_nginx_runs_the_recommended_configuration() -> None:
    mounted = {line.split(":")[1]: line.split(":")[0] for line in SERVICES["nginx"]["volumes"]}
    assert mounted["/etc/nginx/conf.d/default.conf"] == "./deploy/nginx.conf"
    recommended, here = (
        re.sub(r"#.*|\s+", " ", (ROOT / "deploy" / name).read_text())
        for name in ("nginx-upstream.conf", "nginx-upstream.compose.conf")
    )
    assert here.split() == recommended.replace("127.0.0.1:8000", "aipassport:8000").split()
    assert SERVICES["aipassport"]["environment"]["AIPASSPORT_TRUST_PROXY"] == "true"


def test_an_engine_that_stops_the_server_gives_open_streams_their_time() -> None:
    default = 30  # AIPASSPORT_GRACEFUL_TIMEOUT's
    assert int(SERVICES["aipassport"]["stop_grace_period"].removesuffix("s")) > default
    assert int(SERVICES["nginx"]["stop_grace_period"].removesuffix("s")) > default
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


# What the engine would do


def probe(command: list[str], port: int) -> int:
    assert command[0] == "python"
    arguments = [item.replace("8000", str(port)) for item in command[1:]]
    return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=20, check=False).returncode


def alive(port: int) -> int:
    (command,) = re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    return probe(json.loads(command), port)


def ready(port: int) -> int:
    return probe(SERVICES["aipassport"]["healthcheck"]["test"][1:], port)


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_server_that_can_serve_is_healthy(tmp_path: Path) -> None:
    with server(tmp_path / "log") as process:
        assert (alive(process.port), ready(process.port)) == (0, 0)


@pytest.mark.live
@pytest.mark.django_db(transaction=True)
def test_a_server_before_its_migrations_is_alive_and_not_ready(tmp_path: Path) -> None:
    with server(tmp_path / "log", DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3") as process:
        assert alive(process.port) == 0
        assert ready(process.port) != 0


def test_nothing_that_listens_is_neither() -> None:
    port = free_port()
    assert alive(port) != 0
    assert ready(port) != 0


# Under what the image, compose.yaml and the systemd unit impose

_CONFINED = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
cd "$1"
shift
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""
_NO_NEW_CODE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)  # what a kernel before 6.3 does not know
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def confined(*arguments: str) -> list[str]:
    """A Python without capabilities or a way to new ones, its tree read-only, its memory never writable and executable
    at once."""
    return ["unshare", "-m", "sh", "-c", _CONFINED, "sh", str(ROOT), sys.executable, "-c", _NO_NEW_CODE, *arguments]


@pytest.fixture
def may_confine() -> None:
    tried = (
        subprocess.run(confined("-c", "pass"), capture_output=True, timeout=30, check=False) if _is_linux() else None
    )
    if tried is None or tried.returncode:
        pytest.skip("nothing can be confined here: it takes Linux and root")


def _is_linux() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


@pytest.fixture
def installation(tmp_path: Path, may_confine: None) -> dict[str, str]:
    database = tmp_path / "state" / "aipassport.sqlite3"
    database.parent.mkdir()
    port = free_port()
    return environment(
        DATABASE_URL=f"sqlite:///{database}",
        DJANGO_SETTINGS_MODULE="aipassport.settings",
        HOST="127.0.0.1",
        PORT=str(port),
        AIPASSPORT_URL=f"http://127.0.0.1:{port}",
        PYTHONDONTWRITEBYTECODE="1",
    )


@pytest.mark.live
def test_it_serves_without_privileges_from_a_tree_that_cannot_be_written(
    installation: dict[str, str], tmp_path: Path
) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            confined(*arguments), cwd=ROOT, env=installation, text=True, capture_output=True, timeout=120, check=False
        )

    assert "Read-only" in command("-c", "open('written', 'w')").stderr
    assert command("-c", "print(open('/proc/self/status').read())").stdout.count("CapEff:\t0000000000000000") == 1
    made = command("manage.py", "quickstart", "--no-serve", "--json")
    assert made.returncode == 0, made.stderr
    base, token = (json.loads(made.stdout)[name] for name in ("base_url", "token"))
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(
            confined("-m", "gunicorn", "-c", "python:aipassport.gunicorn"),
            cwd=ROOT,
            env=installation,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: alive(int(installation["PORT"])) == 0, within=30)
        answer = requests.post(
            f"{base}/v1/chat/completions",
            json={"model": "sandbox-1", "messages": [{"role": "user", "content": "Hello"}]},
            headers={"authorization": f"Bearer {token}", "connection": "close"},
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
    finally:
        process.terminate()
        assert process.wait(40) == 0
