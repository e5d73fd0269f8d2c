"""Find out whether a pooler such as PgBouncer stands between this process and PostgreSQL.

A pooler that pools by transaction gives each transaction another connection: what was prepared, or a cursor that was
opened, in one is not there in the next. Its clients cannot ask how it pools, so behind any pooler neither is used.
"""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper


def look(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Turn server-side cursors and prepared statements off for a database behind a pooler, unless the settings decide.

    A pooler says its own number where PostgreSQL says the one of the process that serves the connection.
    """
    if connection.vendor != "postgresql" or "DISABLE_SERVER_SIDE_CURSORS" in connection.settings_dict:
        return
    # Not Django's cursor: it would be counted among the queries of a request.
    with connection.connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    if pid != connection.connection.info.backend_pid:
        connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
