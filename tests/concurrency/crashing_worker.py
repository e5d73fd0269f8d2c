"""`python -m tests.concurrency.crashing_worker POINT FLAG`: `fma worker`, killed with all its processes at a point.

It crashes once: the file FLAG is made just before, and while it exists the worker works as it should. What crashes
is a copy of the real worker whose functions are wrapped here, so that the server has no switches for tests.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = (
    "before_claim",
    "after_claim",
    "after_fold",
    "after_store",
    "after_stores",
    "before_commit",
    "after_commit",
)


def arm(point: str, flag: Path) -> None:
    """Wrap the function at which the worker dies; to be called before the worker forks."""
    import django

    django.setup()
    from fma_django.rounds import aggregation, claiming, publishing
    from fma_django.storage.disk import DiskStore

    def die(of: Callable[[], int] = lambda: -os.getpgrp()) -> None:
        if not flag.exists():
            flag.touch()
            os.kill(of(), signal.SIGKILL)

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            die()
            return call(*args, **kwargs)

        return wrapped

    def after(call: Callable[..., Any], *whom: Callable[[], int]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            die(*whom)
            return result

        return wrapped

    if point == "before_claim":
        claiming.claim = before(claiming.claim)
    elif point == "after_claim":
        claiming.claim = after(claiming.claim)
    elif point == "after_claim_alone":
        claiming.claim = after(claiming.claim, os.getpid)
    elif point == "after_fold":
        aggregation.fold_round = after(aggregation.fold_round)  # type: ignore[attr-defined]
    elif point == "after_store":
        # The first of the two files of a strategy with a state.
        DiskStore.put_file = after(DiskStore.put_file)  # type: ignore[method-assign]
    elif point == "after_stores":
        publishing.publish = before(publishing.publish)
    elif point == "before_commit":
        # The last thing that `publish` does inside its transaction, where nothing waits in the next round.
        publishing.advance = after(publishing.advance)  # type: ignore[attr-defined]
    elif point == "after_commit":
        publishing.publish = after(publishing.publish)
    else:
        raise SystemExit(f"no such point: {point}; there are {', '.join(POINTS)}")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fma_api.settings")
    arm(sys.argv[1], Path(sys.argv[2]))
    sys.argv = ["fma", "worker"]
    from fma_api.cli import main

    main()
