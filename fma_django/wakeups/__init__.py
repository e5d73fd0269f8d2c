"""Waking who waits: a client's request that waits for news of a model, a worker that waits for a task.

    wakeups.send(wakeups.of_model(model.pk))      # inside a transaction: heard after its commit
    listener = wakeups.listen("model")
    heard = listener.wait(30)                     # frozenset({"model:7"}), or an empty one when the time is over

A topic is a channel, or a channel and what it is about (`model:7`). A wake-up carries no facts: whoever hears one looks
into the database. It may come twice, or for nothing, and one is lost when its sender dies between the commit and the
word: so whoever waits also looks now and then. A listener that may have missed something says `ALL`.

What carries them: Redis where FMA_BROKER_URL names one, LISTEN and NOTIFY on PostgreSQL, named pipes beside the file of
SQLite.
"""

from fma_django.wakeups.choose import listen, send
from fma_django.wakeups.listener import ALL, Listener
from fma_django.wakeups.topics import TASKS, of_model

__all__ = ["ALL", "TASKS", "Listener", "listen", "of_model", "send"]
