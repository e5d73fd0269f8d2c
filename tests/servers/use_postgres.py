"""Run tests on PostgreSQL instead of SQLite: `pytest -p tests.servers.use_postgres tests/django`.

Loaded by `-p` after tests.environment and before Django reads its settings, so that FMA_DATABASE_URL is in force for
the whole run. DATABASE_URL is set too: xdist's workers inherit it, and so share one server, as does the fixture
`postgres_server`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.servers.postgres import postgres

_folder = Path(tempfile.mkdtemp(prefix="fma-use-postgres-"))
_stack = ExitStack()
_stack.callback(shutil.rmtree, _folder, ignore_errors=True)
_url = _stack.enter_context(postgres(_folder)).url
atexit.register(_stack.close)

os.environ["DATABASE_URL"] = os.environ["FMA_DATABASE_URL"] = _url
