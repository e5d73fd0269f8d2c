"""Wake the requests that wait for news of a model, and the workers that wait for a task.

    wakeups.send(wakeups.of_model(model.pk))      # inside a transaction: heard after its commit
    listener = wakeups.listen("model")
    heard = listener.wait(30)                     # frozenset({"model:7"}), or an empty one when the time is over

A topic is a channel, or a channel and its subject (`model:7`). A wake-up carries no facts: its listener reads the
database. It may come twice, or for nothing, and it is lost when its sender dies after the commit: so a listener also
reads the database at intervals. A listener that may have missed something returns `ALL`.

Wake-ups travel through Redis where FMA_BROKER_URL names one, through LISTEN and NOTIFY on PostgreSQL, and through named
pipes beside the file of SQLite.
"""

from fma_django.wakeups.choose import listen, send
from fma_django.wakeups.listener import ALL, Listener
from fma_django.wakeups.topics import TASKS, of_model

__all__ = ["ALL", "TASKS", "Listener", "listen", "of_model", "send"]
