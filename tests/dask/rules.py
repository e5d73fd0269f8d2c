"""Rules for tests of clusters: one that takes its time and says which process is at it, and one that is deadly."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from fma_core.aggregation.aggregators import Mean

FOLDER = "SLOW_MEAN_FOLDER"


class SlowMean(Mean):
    def combine(self, block: Any, decision: Any) -> Any:
        (Path(os.environ[FOLDER]) / str(os.getpid())).touch()
        time.sleep(0.1)
        return super().combine(block, decision)


class DeadlyMean(Mean):
    """Ends the process that uses it, as the system does when memory runs out."""

    def combine(self, block: Any, decision: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
