"""The rules that a round runs with and the facts that they decide by, looked up in the record when asked for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import structlog
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.rounds import closing
from fma_core.rounds.closing import RoundFacts, RoundRules
from fma_core.rounds.policy import RoundPolicy
from fma_core.selection import Candidate, Filter, PastRound, Selector, filters, selectors
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelUpdate, Participation, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import start_of
from fma_django.record.queries.participation import candidates_of, past_rounds
from fma_django.record.sql import Select
from fma_django.rounds.ending import reason_to_end
from fma_django.rounds.rows import ids_of

log = structlog.get_logger(__name__)

COUNTED = (UpdateStatus.PENDING, UpdateStatus.RUNNING)


_NUM_CLIENTS = """(SELECT COUNT(*) FROM {reg} JOIN {c} ON {c.id} = {reg.client_id}
    WHERE {reg.federatedmodel_id} = %(model)s AND {c.is_active})"""
_IS_AGGREGATING = (
    "EXISTS (SELECT 1 FROM {r} WHERE {r.federated_model_id} = %(model)s AND {r.state} = {aggregating})"
)


class _Beside(NamedTuple):
    """The state of a model beside its open round."""

    num_clients: Annotated[int, _NUM_CLIENTS]
    is_aggregating: Annotated[bool, _IS_AGGREGATING]


# Asked some times for each round between its last update and its aggregate.
_BESIDE = Select(
    _Beside,
    "",
    r=Round,
    c=Client,
    reg=FederatedModel.clients.through,
    aggregating=RoundState.AGGREGATING,
)


class _BesideWithExpected(NamedTuple):
    """The same, and how many active clients a round without a cohort waits for.

    From the first aggregate on, one that has only registered is not among them: whoever registers and stays silent
    would stop the model.
    """

    num_clients: Annotated[int, _NUM_CLIENTS]
    is_aggregating: Annotated[bool, _IS_AGGREGATING]
    num_expected: Annotated[
        int,
        """(SELECT COUNT(*) FROM {reg} JOIN {c} ON {c.id} = {reg.client_id}
        WHERE {reg.federatedmodel_id} = %(model)s AND {c.is_active} AND (
            NOT EXISTS (SELECT 1 FROM {a} WHERE {a.federated_model_id} = %(model)s)
            OR EXISTS (SELECT 1 FROM {u} WHERE {u.client_id} = {c.id} AND {u.federated_model_id} = %(model)s)
            OR EXISTS (
                SELECT 1 FROM {p} JOIN {j} ON {j.id} = {p.round_id}
                WHERE {p.client_id} = {c.id} AND {p.joined_on} IS NOT NULL AND {j.federated_model_id} = %(model)s
            )
        ))""",
    ]


_BESIDE_WITH_EXPECTED = Select(
    _BesideWithExpected,
    "",
    a=ModelAggregate,
    c=Client,
    j=Round,
    p=Participation,
    r=Round,
    reg=FederatedModel.clients.through,
    u=ModelUpdate,
    aggregating=RoundState.AGGREGATING,
)


class ConfiguredRules:
    """`fma_core.rounds.life.Rules` of a round. Each part is built when it is asked for: its plugin may be gone."""

    def __init__(self, current: Round, experiment: FederatedModel) -> None:
        self._current = current
        self._experiment = experiment

    @cached_property
    def closing(self) -> RoundRules:
        # A round that has been claimed is aggregated by the strategy of its claim.
        of_strategy = self._experiment if self._current.is_open else self._current
        return self._experiment.build_round_rules(of_strategy.build_strategy())

    @property
    def chooses_clients(self) -> bool:
        return self._experiment.chooses_clients

    @property
    def filters(self) -> Sequence[Filter]:
        return [filters.build_spec(spec) for spec in self._experiment.eligibility]

    @property
    def selector(self) -> Selector:
        return selectors.build_spec(self._experiment.selector)

    @property
    def seed(self) -> int:
        return self._experiment.seed


class RecordedFacts:
    """`fma_core.rounds.life.Facts` of a round, at one moment.

    may_end: whether something has happened that can end the experiment: a publication, a score, its date.
    """

    def __init__(self, current: Round, *, may_end: bool = False) -> None:
        self.current = current
        self.experiment = as_configured(current)
        self.rules = ConfiguredRules(current, self.experiment)
        self._may_end = may_end
        # One for all decisions: a deadline that passes between two of them would be judged both ways.
        self._now = timezone.now()

    @property
    def number(self) -> int:
        return self.current.number

    @property
    def is_running(self) -> bool:
        return self.current.federated_model.allow_aggregation

    @property
    def is_started(self) -> bool:
        return self.current.started_on is not None

    @property
    def num_updates(self) -> int:
        return self.current.num_updates

    @property
    def num_reopenings(self) -> int:
        return self.current.num_reopenings

    @property
    def num_draws(self) -> int:
        return self.current.num_draws

    @property
    def is_aggregating(self) -> bool:
        return bool(self._beside.is_aggregating)

    @property
    def num_clients(self) -> int:
        return self._beside.num_clients

    @property
    def deadline_passed(self) -> bool:
        return self.current.deadline_at is not None and self.current.deadline_at <= self._now

    @property
    def num_expected(self) -> int | None:
        """The number of clients that the requirement of a round without a cohort counts; None where it counts none."""
        beside = self._beside
        return beside.num_expected if isinstance(beside, _BesideWithExpected) else None

    @property
    def counted(self) -> int | None:
        """`num_expected`, if somebody has asked for it."""
        return self.num_expected if "_beside" in self.__dict__ else None

    def end_reason(self) -> str | None:
        return self._end_reason

    def candidates(self) -> Iterable[Candidate]:
        return candidates_of(self.experiment, self._now)

    def past(self, limit: int | None) -> Sequence[PastRound]:
        return past_rounds(self.experiment, limit=limit)

    def asked(self) -> set[str]:
        return asked_of(self.current)

    def progress(self) -> RoundFacts:
        """How far the round is; the rules decide what is looked up, and without updates nothing is."""
        current, rules = self.current, self.rules.closing
        strategy, num_updates = rules.strategy, self.current.num_updates
        answered = current.model_updates.filter(status__in=COUNTED)
        needed = strategy.aggregator.required_clients if num_updates else ()
        per_organisation = rules.policy.quorum_organisations and num_updates
        return RoundFacts(
            # An accepted update is the only one of its client in the round, and does not outlive its registration.
            num_updates=num_updates,
            num_clients=(self.num_expected or 0) if counts_clients(rules, current.num_asked) else 0,
            num_asked=current.num_asked,
            has_start=not strategy.needs_start
            or num_updates < strategy.min_updates
            or bool(start_of(self.experiment, current.parent)),
            deadline_passed=self.deadline_passed,
            answered=_names(answered.filter(client__in=_ids(needed)), "client_id") if needed else (),
            gone=set(needed).difference(_names(self._able.filter(pk__in=_ids(needed)), "pk"))
            if needed
            else (),
            by_organisation=Counter(
                name or "" for name in answered.values_list("client__organisation__name", flat=True)
            )
            if per_organisation
            else {},
        )

    @property
    def _able(self) -> QuerySet[Client]:
        return self.current.federated_model.clients.filter(is_active=True)

    @cached_property
    def _beside(self) -> _Beside | _BesideWithExpected:
        federated_model_id = self.current.federated_model_id
        if not self._counts_clients:
            return _beside(federated_model_id)
        with connection.cursor() as cursor:
            (beside,) = _BESIDE_WITH_EXPECTED.all(cursor, {"model": federated_model_id})
        return beside

    @property
    def _counts_clients(self) -> bool:
        try:
            return counts_clients(self.rules.closing, self.current.num_asked)
        except (InvalidPart, InvalidStrategy):  # whoever asks for the rules themselves is told
            return False

    @cached_property
    def _end_reason(self) -> str | None:
        return reason_to_end(self.current.federated_model) if self._may_end else None


def is_complete(current: Round) -> bool:
    """Whether a round has all that its policy, its requirement and its strategy wait for.

    A plugin that is gone holds a round open: nothing else of the server may stop for that.
    """
    facts = RecordedFacts(current)
    try:
        return closing.verdict_of(facts.rules.closing, facts.progress()) == "close"
    except (InvalidPart, InvalidStrategy) as error:
        # It was there when the model was saved.
        log.error("model_unusable", **ids_of(current), error=error.message)
        return False


def takes_no_more(current: Round, policy: RoundPolicy) -> bool:
    """Whether a round takes no further client. One that lacks an organisation, or a client that its rule cannot do
    without, would otherwise wait for them for ever.
    """
    most = policy.max_updates
    return most is not None and current.num_updates >= most and is_complete(current)


def may_be_due(rules: RoundRules, facts: RoundFacts, *, clients_counted: int | None) -> bool:
    """Whether `advance` is worth its cost after one more update: it looks at every client and every update.

    facts: what is known without them. clients_counted: see Round.
    """
    if counts_clients(rules, facts.num_asked) and clients_counted is None:
        return True
    return closing.verdict_of(rules, facts) == "close"


def counts_clients(rules: RoundRules, num_asked: int | None) -> bool:
    """Whether the number of a model's clients decides when its round closes."""
    return rules.requirement is not None and num_asked is None and rules.policy.goal is None


def asked_of(current: Round) -> set[str]:
    """The ids of the clients that were chosen for a round and can still answer."""
    present = current.federated_model.clients.filter(is_active=True)
    chosen = current.participations.filter(is_chosen=True, client__in=present)
    return {str(client_id) for client_id in chosen.values_list("client_id", flat=True)}


def is_aggregating(federated_model: FederatedModel) -> bool:
    """Whether a round of the model is being aggregated."""
    return bool(_beside(federated_model.pk).is_aggregating)


def num_clients(federated_model: FederatedModel) -> int:
    """The number of active clients registered with the model."""
    return _beside(federated_model.pk).num_clients


def _beside(federated_model_id: int) -> _Beside:
    with connection.cursor() as cursor:
        (beside,) = _BESIDE.all(cursor, {"model": federated_model_id})
    return beside


def _names(rows: QuerySet[Any], column: str) -> list[str]:
    return [str(value) for value in rows.values_list(column, flat=True)]


def _ids(client_ids: Sequence[str]) -> list[UUID]:
    """The ids that parse as UUIDs: a developer wrote them."""
    parsed = []
    for client_id in client_ids:
        with suppress(ValueError):
            parsed.append(UUID(client_id))
    return parsed
