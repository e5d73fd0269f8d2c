"""The policy of each array of a model: how its next value comes from those that clients send.

    stepped    the rule aggregates its changes, and the optimiser takes a step from them: trained parameters
    averaged   the mean of the values that were sent: statistics that are measured and not trained, and counters
    newest     the value of the newest update
    collected  the values of all updates, one after the other along the first axis: trees of a forest
    kept       the value that the server has; clients do not send it (a personal layer, say)

Running statistics of normalisation layers are averaged unless the model says otherwise. A step of an optimiser can make
a variance negative, and the model then gives NaN.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, get_args

from fma_core.arrays import dtypes
from fma_core.arrays.spec import Spec
from fma_core.errors import InvalidParameter

Policy = Literal["stepped", "averaged", "newest", "collected", "kept"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

# Part of what a round is computed by: under another list, `fma verify` could not recompute a published round.
AVERAGED_BY_DEFAULT = (
    "*running_mean",  # torch
    "*running_var",
    "*num_batches_tracked",
    "*moving_mean",  # Keras
    "*moving_variance",
    "*moving_mean:0",
    "*moving_variance:0",
    "*batch_stats*",  # Flax
)
MAX_NAMES = 1024
MAX_PATTERNS = 64
MAX_PATTERN_LENGTH = 1024
FIELD = "array_policies"

# Variances by the words of those who name them. A logarithm of a variance may be negative.
_VARIANCE = re.compile(r"(?:.*[^A-Za-z])?(?<!log[^A-Za-z])var(?:iance)?(?::\d+)?", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class ArrayPolicies:
    """The policies that a model's developer chose, by pattern, before the defaults.

    chosen: patterns of array names (* matches anything, ? one character) and their policies. Of several that match, the
    name itself wins, then the pattern with the most other characters.

    >>> policies = ArrayPolicies.of({"head.*": "kept", "*": "averaged"})
    >>> policies.policy_of("head.weight"), policies.policy_of("body.weight")
    ('kept', 'averaged')
    >>> ArrayPolicies().policy_of("norm.running_var"), ArrayPolicies().policy_of("norm.weight")
    ('averaged', 'stepped')
    """

    chosen: tuple[tuple[str, Policy], ...] = ()
    has_defaults: bool = True

    @classmethod
    def of(cls, value: object) -> ArrayPolicies:
        """Read an object of policies by pattern. Raises InvalidParameter."""
        if not isinstance(value, Mapping):
            raise invalid_policy(
                f'must be an object of policies by pattern, such as {{"head.*": "kept"}}; found {value!r:.80}'
            )
        for pattern, policy in value.items():
            _check(pattern, policy)
        num_patterns = sum(map(_is_wild, value))
        if num_patterns > MAX_PATTERNS or len(value) > MAX_NAMES:
            raise invalid_policy(
                f"may have {MAX_PATTERNS} patterns and {MAX_NAMES} entries; found {num_patterns} and {len(value)}"
            )
        return cls(tuple(sorted(value.items())))

    @classmethod
    def before_policies(cls) -> ArrayPolicies:
        """The policies of rounds that were claimed before there were any: every array that is sent is stepped."""
        return cls(has_defaults=False)

    def to_json(self) -> dict[str, Policy]:
        return dict(self.chosen)

    def policy_of(self, array: str) -> Policy:
        """The policy of the array of this name."""
        return self.chosen_for(array) or self._default_of(array)

    def chosen_for(self, array: str) -> Policy | None:
        """The policy that the developer chose for an array; None where the default holds."""
        exact = self._by_name.get(array)
        if exact is not None:
            return exact
        return next((each.policy for each in self._by_rank if each.matches(array)), None)

    @property
    def keeps_any(self) -> bool:
        """Whether a pattern says `kept` or `collected`: a round then needs the values that the server has."""
        return any(policy in {"kept", "collected"} for _, policy in self.chosen)

    def is_variance(self, array: str) -> bool:
        """Whether an array holds variances by its name, so that a negative value must not be published."""
        if _VARIANCE.fullmatch(array) is None:
            return False
        # A trained parameter may have any name and any value.
        return self._default_of(array) == "averaged" or self.policy_of(array) == "averaged"

    def check(self, spec: Spec) -> None:
        """Check that each pattern matches an array, no two disagree about one, and each array can be what it says.

        Raises InvalidParameter.
        """
        for pattern, _ in self.chosen:
            if pattern not in spec.by_name and not any(map(_matcher(pattern), spec.names)):
                close = get_close_matches(pattern, spec.names, n=1)
                raise invalid_policy(
                    f"{pattern!r:.80} matches no array of the model's spec"
                    + (f"; did you mean {close[0]!r}?" if close else f", which has {_some(spec.names)}"),
                    pattern=pattern,
                )
        for name in spec.names:
            self._check_rivals(name)
        for array in spec.arrays:
            if array.dtype not in dtypes.FLOATS and self.chosen_for(array.name) == "stepped":
                raise invalid_policy(
                    f"array {array.name!r} holds {array.dtype}; only floating-point arrays can be stepped",
                    pattern=array.name,
                )
            if self.policy_of(array.name) == "collected" and not array.shape:
                raise invalid_policy(
                    f"array {array.name!r} is a single number; a collected array has the shape (most, …), where most "
                    "is the largest number of values to keep, and … the shape of the value that a client sends",
                    pattern=array.name,
                )

    def _check_rivals(self, name: str) -> None:
        if name in self._by_name:
            return
        matching = [rule for rule in self._by_rank if rule.matches(name)]
        for second in matching[1:]:
            first = matching[0]
            if second.precision == first.precision and second.policy != first.policy:
                raise invalid_policy(
                    f"array {name!r} matches {first.pattern!r} ({first.policy}) and "
                    f"{second.pattern!r} ({second.policy}); give its whole name its policy",
                    pattern=second.pattern,
                )

    def _default_of(self, array: str) -> Policy:
        if self.has_defaults and _DEFAULT(array):
            return "averaged"
        return "stepped"

    @cached_property
    def _by_name(self) -> dict[str, Policy]:
        return dict(self.chosen)

    @cached_property
    def _by_rank(self) -> list[_Rule]:
        rules = [
            _Rule(pattern, policy, _matcher(pattern)) for pattern, policy in self.chosen if _is_wild(pattern)
        ]
        return sorted(rules, key=lambda rule: (-rule.precision, rule.pattern))


DEFAULT_POLICIES = ArrayPolicies()


@dataclass(frozen=True)
class _Rule:
    pattern: str
    policy: Policy
    matches: Callable[[str], object]

    @property
    def precision(self) -> int:
        return sum(letter not in "*?" for letter in self.pattern)


def _is_wild(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _matcher(pattern: str) -> Callable[[str], object]:
    # Brackets are common in names ("layers[0].w"), so they stand for themselves.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match


_DEFAULT = re.compile("|".join(fnmatch.translate(pattern) for pattern in AVERAGED_BY_DEFAULT)).match


def _check(pattern: object, policy: object) -> None:
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN_LENGTH:
        raise invalid_policy(
            f"patterns must have 1 to {MAX_PATTERN_LENGTH} characters; found {pattern!r:.80}", pattern=pattern
        )
    if policy not in POLICIES:
        close = get_close_matches(policy, POLICIES, n=1) if isinstance(policy, str) else []
        raise invalid_policy(
            f"the policy of {pattern!r:.80} must be one of {', '.join(POLICIES)}; found {policy!r:.80}"
            + (f"; did you mean {close[0]!r}?" if close else ""),
            pattern=pattern,
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


def invalid_policy(message: str, *, pattern: object = None) -> InvalidParameter:
    """The error of policies that cannot work."""
    return InvalidParameter(message, kind=FIELD, parameter=pattern, field=FIELD)
