"""The selector of as many clients as can answer in time.

Source: Nishio and Yonetani 2019, arXiv:1804.08333, algorithm 3 and equations 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.cohort.facts import Float64, assume_median, positive_facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal

BITS_PER_MEGABIT = 1e6


@dataclass(frozen=True)
class Times:
    """The seconds that each client needs: T^d to receive the model, t^UD to train, t^UL to send its update."""

    download: Float64
    update: Float64
    upload: Float64


@selectors.register("fedcs")
@dataclass(frozen=True)
class FedCS(Selector):
    """Greedily the client that lengthens the round least, as long as the round should end within `deadline_s`.

    The paper's clients share a radio ("sequential"): the model reaches all of them at the speed of the slowest, they
    train at the same time, and upload one after another. With "parallel" each has its own connection. The paper asks
    clients for their times. Here the time to train is that of the last answered round without its transfers. A client
    without such a round counts like the median of the others; otherwise it would never be asked.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("fast", round_s=2.0), Candidate("slow", round_s=90.0)]
    >>> select(clients, selector=FedCS(deadline_s=10), num=2, seed=0, round_number=1).chosen
    ('fast',)
    """

    source: ClassVar[str] = "Nishio and Yonetani 2019, arXiv:1804.08333, algorithm 3"

    deadline_s: Annotated[float, Bounds(gt=0), "T_round: the longest duration of the round"]
    model_bytes: Annotated[int, Bounds(ge=0), "the size of the model; 0: transfers take no time"] = 0
    server_s: Annotated[float, Bounds(ge=0), "T_cs + T_agg: the server's own share of the round"] = 0.0
    uploads: Annotated[Literal["sequential", "parallel"], "whether clients share a connection"] = "sequential"
    share: Annotated[
        float, Bounds(gt=0, le=1), "C: the share of the clients, drawn at random, to look at"
    ] = 1.0

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        num_looked_at = int(np.ceil(self.share * len(pool.candidates)))
        # In random order, so that names do not decide between equal clients.
        looked_at = np.argsort(rng.random(len(pool.candidates)), kind="stable")[:num_looked_at]
        times = self.times_of(pool)
        times = Times(times.download[looked_at], times.update[looked_at], times.upload[looked_at])
        way = self._one_after_another if self.uploads == "sequential" else self._at_once
        chosen, too_slow = way(times, pool.num_wanted)
        refusal = Refusal(
            "too_slow",
            f"the round would not be over in {self.deadline_s:g} s with this client, as fast as it was last",
        )
        return Choice(
            frozenset(pool.candidates[index].client for index in looked_at[chosen]),
            {pool.candidates[index].client: refusal for index in looked_at[too_slow]},
        )

    def times_of(self, pool: Pool) -> Times:
        """The estimated times of all candidates."""
        megabits = 8 * self.model_bytes / BITS_PER_MEGABIT
        download = megabits / assume_median(positive_facts(pool.candidates, "download_mbps"), np.inf)
        upload = megabits / assume_median(positive_facts(pool.candidates, "upload_mbps"), np.inf)
        whole = assume_median(positive_facts(pool.candidates, "round_s"), 0.0)
        return Times(download, np.maximum(whole - download - upload, 0.0), upload)

    def _one_after_another(self, times: Times, num: int) -> tuple[list[int], list[int]]:
        """Algorithm 3. A client that does not fit now never will, because Θ and T^d only grow: drop it at once."""
        chosen: list[int] = []
        left = np.arange(len(times.update))
        theta, slowest = 0.0, 0.0  # Θ and T^d of those chosen
        while len(left) and len(chosen) < num:
            download, update, upload = times.download[left], times.update[left], times.upload[left]
            with_it = np.maximum(slowest, download)
            longer = upload + np.maximum(0.0, update - theta)
            fits = self.server_s + with_it + theta + longer < self.deadline_s
            if not fits.any():
                break
            best = int(np.argmin(np.where(fits, with_it - slowest + longer, np.inf)))
            chosen.append(int(left[best]))
            theta, slowest = theta + longer[best], with_it[best]
            fits[best] = False
            left = left[fits]
        return chosen, self._never_in_time(times, chosen, theta, slowest)

    def _at_once(self, times: Times, num: int) -> tuple[list[int], list[int]]:
        """The fastest clients that are in time; with their own connections they do not depend on each other."""
        ends = self.server_s + times.download + times.update + times.upload
        order = [int(index) for index in np.argsort(ends, kind="stable")]
        in_time = [index for index in order if ends[index] < self.deadline_s]
        return in_time[:num], order[len(in_time) :]

    def _never_in_time(self, times: Times, chosen: list[int], theta: float, slowest: float) -> list[int]:
        longer = times.upload + np.maximum(0.0, times.update - theta)
        ends = self.server_s + np.maximum(slowest, times.download) + theta + longer
        others = np.setdiff1d(np.arange(len(ends)), chosen)
        return [int(index) for index in others if ends[index] >= self.deadline_s]
