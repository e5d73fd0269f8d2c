"""Opening an evaluation: what is asked, of which weights, and whom."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from fma_core.errors import InvalidQuestion
from fma_core.evaluation import Question
from fma_django import conf, wakeups
from fma_django.errors import InvalidValue, TooFewContributors
from fma_django.evaluations.privacy import contributor_of, require_no_isolation
from fma_django.models import Client, EvaluationRound, FederatedModel, ModelAggregate, ModelArtifact
from fma_django.models.evaluation_round import EvaluationSubject
from fma_django.record.idempotency import Once, create_once
from fma_django.record.json_values import require_storable
from fma_django.record.weights import WeightsBody, store_weights

MAX_CHOSEN = 10_000
MAX_DEADLINE_S = 366 * 86400
DAY_S = 86400.0


@dataclass(frozen=True)
class Chosen:
    """The clients to ask: those that are named, carry one of the tags, or belong to one of the organisations.

    Without any of them: every client of the model.
    """

    clients: Sequence[UUID] = ()
    tags: Sequence[str] = ()
    organisations: Sequence[str] = ()


@dataclass(frozen=True)
class EvaluationRules:
    """min_contributors: None asks for as few as the server allows. deadline_s: from now, by the server's clock."""

    min_contributors: int | None = None
    quorum_per_organisation: int | None = None
    deadline_s: float = DAY_S


def open_evaluation(
    federated_model: FederatedModel,
    question: Any,
    *,
    aggregate_id: int | None = None,
    artifact_id: int | None = None,
    body: WeightsBody | None = None,
    chosen: Chosen = Chosen(),
    rules: EvaluationRules = EvaluationRules(),
    name: str = "",
    once_key: tuple[str, str] | None = None,
) -> EvaluationRound:
    """Ask the chosen clients; whoever of them has answered by the deadline counts.

    question: JSON of a Question. One of aggregate_id, artifact_id and body says which weights are looked at.
    Raises InvalidQuestion, InvalidValue, TooFewContributors, IsolatesContributors, what `store_weights` and
    `create_once` raise.
    """
    asked = _build(question)
    require_storable(name, field="name")
    min_contributors = _checked(rules)
    clients = _choose(federated_model, chosen)
    _require_contributors(clients, min_contributors, rules.quorum_per_organisation)
    weights = _weights(federated_model, aggregate_id, artifact_id, body)

    def create() -> EvaluationRound:
        # Not before: a repetition of the request that opened it must be answered with it.
        require_no_isolation(
            federated_model,
            {str(client.pk): contributor_of(client) for client in clients},
            min_contributors=min_contributors,
        )
        evaluation = EvaluationRound.objects.create(
            federated_model=federated_model,
            name=name,
            subject=weights.subject,
            aggregate=weights.aggregate,
            artifact=weights.artifact,
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
            question=asked.to_json(),
            min_contributors=min_contributors,
            quorum_per_organisation=rules.quorum_per_organisation,
            deadline_at=timezone.now() + timedelta(seconds=rules.deadline_s),
        )
        evaluation.clients.set(clients)
        wakeups.send(wakeups.of_model(federated_model.pk))
        return evaluation

    once = None
    if once_key is not None:
        request = [asked.to_json(), weights.sha256, name, repr(chosen), repr(rules)]
        once = Once(*once_key, fingerprint=hashlib.sha256(json.dumps(request).encode()).hexdigest())
    return create_once(once, EvaluationRound, create)


@dataclass(frozen=True)
class _Weights:
    subject: EvaluationSubject
    sha256: str
    size_bytes: int
    aggregate: ModelAggregate | None = None
    artifact: ModelArtifact | None = None


def _build(question: Any) -> Question:
    try:
        return Question.from_json(question)
    except InvalidQuestion as error:
        error.facts.setdefault("field", "question")
        raise


def _checked(rules: EvaluationRules) -> int:
    floor = conf.current().evaluation_min_contributors
    asked = floor if rules.min_contributors is None else rules.min_contributors
    if not floor <= asked <= MAX_CHOSEN:
        raise InvalidValue(
            f"min_contributors must be {floor} (FMA_EVALUATION_MIN_CONTRIBUTORS) to {MAX_CHOSEN}; found {asked}",
            field="min_contributors",
        )
    quorum = rules.quorum_per_organisation
    if quorum is not None and not 1 <= quorum <= MAX_CHOSEN:
        raise InvalidValue(
            f"quorum_per_organisation must be 1 to {MAX_CHOSEN}; found {quorum}",
            field="quorum_per_organisation",
        )
    if not 0 < rules.deadline_s <= MAX_DEADLINE_S:
        raise InvalidValue(
            f"deadline_s must be above 0 and at most {MAX_DEADLINE_S}; found {rules.deadline_s}",
            field="deadline_s",
        )
    return asked


def _choose(federated_model: FederatedModel, chosen: Chosen) -> list[Client]:
    own = federated_model.clients.filter(is_active=True)
    if chosen != Chosen():
        own = own.filter(
            Q(pk__in=chosen.clients)
            | Q(tags__name__in=chosen.tags)
            | Q(organisation__name__in=chosen.organisations)
        ).distinct()
    clients = list(
        own.order_by("pk").prefetch_related("tags").select_related("organisation")[: MAX_CHOSEN + 1]
    )
    if len(clients) > MAX_CHOSEN:
        raise InvalidValue(f"an evaluation asks at most {MAX_CHOSEN} clients", field="clients")
    # Whether somebody exists who is not of this model is not told.
    _require_all("clients", chosen.clients, {client.pk for client in clients})
    _require_all("tags", chosen.tags, {tag.name for client in clients for tag in client.tags.all()})
    _require_all(
        "organisations",
        chosen.organisations,
        {client.organisation.name for client in clients if client.organisation is not None},
    )
    return clients


def _require_all(field: str, named: Sequence[Any], known: set[Any]) -> None:
    for one in named:
        if one not in known:
            raise InvalidValue(f"no active client of the model is meant by {str(one)!r:.80}", field=field)


def _require_contributors(clients: Sequence[Client], minimum: int, quorum: int | None) -> None:
    of: dict[str, int] = {}
    for client in clients:
        contributor = contributor_of(client)
        of[contributor] = of.get(contributor, 0) + (1 if client.organisation_id is not None else quorum or 1)
    enough = [contributor for contributor, answers in of.items() if answers >= (quorum or 1)]
    if len(enough) < minimum:
        raise TooFewContributors(
            f"{len(clients)} clients of {len(enough)} contributors (organisations, or clients without one) are chosen; "
            f"metrics are shown of {minimum} or more"
        )


def _weights(
    federated_model: FederatedModel,
    aggregate_id: int | None,
    artifact_id: int | None,
    body: WeightsBody | None,
) -> _Weights:
    if sum(one is not None for one in (aggregate_id, artifact_id, body)) == 1:
        if aggregate_id is not None:
            return _of_aggregate(federated_model, aggregate_id)
        if artifact_id is not None:
            return _of_artifact(federated_model, artifact_id)
        if body is not None:
            return _uploaded(federated_model, body)
    raise InvalidValue(
        "an evaluation is of one of these: an aggregate, an artifact, weights", field="weights"
    )


def _of_aggregate(federated_model: FederatedModel, pk: int) -> _Weights:
    aggregate = federated_model.aggregates.filter(pk=pk).first()
    if aggregate is None:
        raise InvalidValue(f"the model has no aggregate {pk}", field="aggregate")
    return _Weights(EvaluationSubject.AGGREGATE, aggregate.sha256, aggregate.size_bytes, aggregate=aggregate)


def _of_artifact(federated_model: FederatedModel, pk: int) -> _Weights:
    artifact = federated_model.artifacts.filter(pk=pk).first()
    if artifact is None:
        raise InvalidValue(f"the model has no artifact {pk}", field="artifact")
    return _Weights(EvaluationSubject.ARTIFACT, artifact.sha256, artifact.size_bytes, artifact=artifact)


def _uploaded(federated_model: FederatedModel, body: WeightsBody) -> _Weights:
    stored = store_weights(
        body, spec=federated_model.array_spec, layout=federated_model.layout, field="weights"
    )
    return _Weights(EvaluationSubject.UPLOAD, stored.sha256, stored.size_bytes)
