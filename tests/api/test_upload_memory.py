"""An upload is a stream: its size does not show in the memory of the process, however it is packed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fma_connect.encoding import EncodedBody
from fma_core.arrays.codecs.zstd import WINDOW_LOG, zstd  # type: ignore[attr-defined]

SCRIPT = """
import json, os, sys
import django
django.setup()
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from fma_core.arrays.spec import ArraySpec, Spec
from tests.records import make_client, make_model

call_command("migrate", verbosity=0)
application = get_wsgi_application()

def upload(path, num_parameters, dtype, coding):
    model = make_model(spec=Spec((ArraySpec("w", (num_parameters,), dtype),)).to_json())
    client = make_client(model)
    with open(path, "rb", buffering=0) as body:
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/api/v1/model_updates/", "SERVER_NAME": "localhost",
            "QUERY_STRING": f"federated_model={model.pk}", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "application/vnd.safetensors", "CONTENT_LENGTH": str(os.stat(path).st_size),
            "HTTP_CONTENT_ENCODING": coding, "HTTP_CLIENT_UUID": str(client.credential),
            "wsgi.input": body, "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
        }
        status = []
        answer = b"".join(application(environ, lambda line, headers: status.append(line)))
    assert status[0].startswith("201"), (status, answer)

def memory(name):
    with open("/proc/self/status") as file:
        [line] = [line for line in file if line.startswith(name)]
    return int(line.split()[1]) * 1024

def grown(*body):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = memory("VmRSS")
    upload(*body)
    return memory("VmHWM") - before

small, *large = json.loads(sys.argv[1])
upload(*small)
print(json.dumps([grown(*body) for body in large]))
"""


def write_plain(path: Path, num_parameters: int) -> tuple[str, int, str, str]:
    write(path, EncodedBody({"w": np.zeros(num_parameters, np.float32)}))
    return str(path), num_parameters, "float32", ""


def write_int8(path: Path, num_parameters: int) -> tuple[str, int, str, str]:
    write(path, EncodedBody({"w": np.ones(num_parameters)}, "int8"))
    return str(path), num_parameters, "float64", ""


def write_zstd(path: Path, num_parameters: int) -> tuple[str, int, str, str]:
    """With the largest window that is allowed, all of it needed."""
    frame = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: WINDOW_LOG})
    with open(path, "wb") as file:
        noise = np.random.default_rng(1).standard_normal(num_parameters, dtype=np.float32)
        for piece in EncodedBody({"w": noise}).pieces():
            file.write(frame.compress(piece))
        file.write(frame.flush())
    return str(path), num_parameters, "float32", "zstd"


def write(path: Path, body: EncodedBody) -> None:
    with open(path, "wb") as file:
        file.writelines(body.pieces())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_an_upload_needs_less_than_16_mib(tmp_path: Path) -> None:
    bodies = [
        write_plain(tmp_path / "small", 2**19),
        write_plain(tmp_path / "plain", 2**23),
        write_int8(tmp_path / "int8", 2**22),
        write_zstd(tmp_path / "zstd", 2**23),
    ]
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FMA_")},
        "FMA_DATA_DIR": str(tmp_path),
        "FMA_SECRET_KEY": "tests-only-" + "0123456789" * 5,
        "FMA_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "fma_api.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(bodies)],
        env=env,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert all(grown < 16 * 2**20 for grown in json.loads(done.stdout.splitlines()[-1])), done.stdout
