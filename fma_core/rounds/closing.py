"""Whether a round may be closed, by all that its configuration says.

Pure decisions, so that the server and `fma_core.simulate` close the same rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fma_core.aggregation.strategy import Strategy
from fma_core.rounds.policy import Answers, RoundPolicy, Verdict
from fma_core.rounds.requirements import Requirement, RoundProgress


@dataclass(frozen=True)
class RoundRules:
    """The parts of a configuration that decide when a round closes. requirement: None when the model names none."""

    policy: RoundPolicy
    strategy: Strategy
    requirement: Requirement | None = None


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """How far a round is.

    num_updates: those that count; each is the only one of its client. num_clients: of the model.
    num_asked: the size of the cohort; None where every client may answer.
    answered: which clients they are; asked only where the rule cannot do without some (`required_clients`).
    gone: which of those cannot answer, because they are not registered or are revoked.
    by_organisation: how many of each organisation; asked only where the policy wants several.
    """

    num_updates: int
    num_clients: int
    num_asked: int | None = None
    has_start: bool = True
    deadline_passed: bool = False
    answered: Collection[str] = ()
    gone: Collection[str] = ()
    by_organisation: Mapping[str, int] = field(default_factory=dict)


def verdict_of(rules: RoundRules, facts: RoundFacts) -> Verdict:
    """Judge a round that is this far: close it, wait, or say that it missed its quorum."""
    answers = Answers(
        num_updates=facts.num_updates,
        requirement_met=_requirement_met(rules, facts),
        num_asked=facts.num_asked,
        by_organisation=facts.by_organisation,
        deadline_passed=facts.deadline_passed,
    )
    verdict = rules.policy.verdict(answers, min_updates=rules.strategy.min_updates)
    # A missing need of the rule holds a round open; it never fails inside.
    if verdict == "close" and not _has_what_it_needs(rules.strategy, facts):
        return "quorum_not_met" if facts.deadline_passed else "wait"
    return verdict


def missing_of(rules: RoundRules, facts: RoundFacts) -> str:
    """The updates without which the rule cannot aggregate, in words; "" when none is missing."""
    missing = [
        f"{client}, which is not registered or is revoked" if client in facts.gone else client
        for client in rules.strategy.aggregator.required_clients
        if client not in facts.answered
    ]
    return f"an update of the client that the rule needs: {'; '.join(missing)}" if missing else ""


def _requirement_met(rules: RoundRules, facts: RoundFacts) -> bool:
    if rules.requirement is None:
        # FMA's default where everybody may answer. Whoever chooses clients waits for them.
        return facts.num_asked is None and facts.num_updates >= 1
    num_clients = facts.num_clients if facts.num_asked is None else facts.num_asked
    return rules.requirement.is_met(
        RoundProgress(
            num_updates=facts.num_updates,
            num_clients=num_clients,
            num_clients_answered=facts.num_updates,
        )
    )


def _has_what_it_needs(strategy: Strategy, facts: RoundFacts) -> bool:
    if strategy.needs_start and not facts.has_start:
        return False
    return set(strategy.aggregator.required_clients) <= set(facts.answered)
