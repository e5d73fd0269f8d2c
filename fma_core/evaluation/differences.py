"""The check that merged results, taken together, do not reveal a small group: differences of sums are sums, too.

When hospital 7 answers the first of two evaluations and not the second, the difference of the two results is the data
of hospital 7. So a merged result is shown only when, together with those shown before, it isolates nobody:

- no two of them differ by a group of fewer than `min_contributors` contributors, and
- no linear combination of them depends on one contributor alone. The sums of the rounds are the rows of a 0/1 matrix
  (rounds, clients) applied to the clients' statistics. With orthonormal rows V of its row space, a combination is
  zero outside the columns S exactly when V[:, S] has the singular value 1.

Not checked: combinations of three or more rounds that reveal a small group of several contributors, combinations that
need more than the MOST_COMBINED newest rounds, and the data that a contributor can subtract because it is its own.
Source of the attack: Denning 1980, doi:10.1145/320613.320616, "trackers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# A combination that depends almost only on one contributor reveals nearly as much.
NEARLY_ONE = 1 - 1e-9
# The work grows with the square of their number.
MOST_COMBINED = 200


@dataclass(frozen=True)
class Isolation:
    """A group that a new result would isolate.

    shown: the position of the round from which the new one differs too little; None: several rounds together.
    """

    num_contributors: int
    shown: int | None


def isolation_of(
    new: Mapping[str, str], shown: Sequence[Mapping[str, str]], *, min_contributors: int
) -> Isolation | None:
    """The isolation of a group that is too small, if `new` were shown; None when there is none.

    new, shown: for each round, the contributor of each client (an organisation, or the client itself).
    shown: the newest first.
    """
    for position, earlier in enumerate(shown):
        apart = {(new.get(client) or earlier[client]) for client in new.keys() ^ earlier.keys()}
        if 0 < len(apart) < min_contributors:
            return Isolation(len(apart), position)
    return Isolation(1, None) if _isolates_one([new, *shown[:MOST_COMBINED]]) else None


def _isolates_one(rounds: Sequence[Mapping[str, str]]) -> bool:
    contributor_of = {client: by for round_ in reversed(rounds) for client, by in round_.items()}
    clients = sorted(contributor_of)
    groups = sorted({tuple(client in round_ for client in clients) for round_ in rounds})
    if len(groups) < 2:
        return len(set(contributor_of.values())) < 2
    basis = _row_space(np.array(groups, np.float64))
    columns: dict[str, list[int]] = {}
    for column, client in enumerate(clients):
        columns.setdefault(contributor_of[client], []).append(column)
    return any(np.linalg.norm(basis[:, mine], 2) >= NEARLY_ONE for mine in columns.values())


def _row_space(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, sizes, rows = np.linalg.svd(matrix, full_matrices=False)
    rank = int((sizes > sizes[0] * max(matrix.shape) * np.finfo(np.float64).eps).sum())
    return np.asarray(rows[:rank])
