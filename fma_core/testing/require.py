"""Failures of a contract, with sentences for readers who do not know this package."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

T = TypeVar("T")


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def through_pickle(value: T, what: str) -> T:
    """The copy of a value that another process receives."""
    try:
        copy: Any = pickle.loads(pickle.dumps(value))  # noqa: S301  made in the same expression
    except Exception as error:
        raise AssertionError(
            f"{what} must pickle, because folds run on other machines too: {type(error).__name__}: {error}. "
            "Define classes and functions at the top of a module, and keep no open files, locks or lambdas."
        ) from error
    return copy  # type: ignore[no-any-return]
