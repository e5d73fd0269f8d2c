"""Serve one of the Django projects beside this file by granian, as fma is served, after its `prepare()`.

    python serve_wsgi.py MODULE PORT FOLDER DATABASE_URL THREADS

Runs in the interpreter that has what the project needs, Python 3.10 or newer.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from granian import Granian
from granian.constants import Interfaces


def main(module: str, port: str, folder: str, database_url: str, threads: str) -> None:
    # The module reads them, here and in granian's own process.
    os.environ.update(EDGE_FOLDER=folder, EDGE_DATABASE_URL=database_url)
    import_module(module).prepare()
    Granian(
        f"{module}:application",
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.WSGI,
        blocking_threads=int(threads),
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
