"""An executor that pickles all work and all results, like one on other machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fma_core.engine.executors import Work
from fma_core.engine.job import Job
from fma_core.testing.require import through_pickle


@dataclass(frozen=True)
class Elsewhere:
    """An executor on copies of work, job and results, like Dask's workers."""

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        for name in ("decision", "measure"):
            through_pickle(
                getattr(work, name, None), f"what `measure` decides or adds up ({name!r} of the work)"
            )
        their_work, their_job = through_pickle((work, job), "the rule, and all that it needs,")
        try:
            for item in range(num_items):
                yield through_pickle(their_work(their_job, item), "a result")
        finally:
            their_job.close()
