"""Processes that end with their parent, even when it is killed and can tell nobody (Linux; elsewhere nothing happens).

The kernel sends the signal when the *thread* that started the child ends: start children from the main thread.
"""

import ctypes
import multiprocessing.context
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process, by SIGKILL, as soon as its parent process (`parent`, a pid) has ended."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os._exit(1)


def bind_forked_children() -> None:
    """Let every process that this one or its descendants fork from now on end with its parent, and not by SIGTERM.

    The worker's library forks a guard that forks others, and has no place to say this. systemd sends SIGTERM to all at
    once: a guard that died of it would leave this process waiting for ever for its answer (multiprocessing's Event.set
    waits for each sleeper), and the others their rounds unfinished. A process that hangs is killed instead.
    """
    multiprocessing.context.ForkProcess.terminate = multiprocessing.context.ForkProcess.kill  # type: ignore[method-assign]
    parent = os.getpid()

    def remember() -> None:
        nonlocal parent
        parent = os.getpid()

    def bind() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        die_with(parent)

    os.register_at_fork(before=remember, after_in_child=bind)
