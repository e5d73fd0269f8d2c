"""Privacy of an evaluation: refuse to show metrics that, beside those shown before, would speak of few contributors."""

from collections.abc import Mapping, Sequence

from django.contrib.auth.models import User

from fma_core.evaluation import Isolation, isolation_of
from fma_django import conf
from fma_django.errors import IsolatesContributors
from fma_django.models import Client, Disclosure, EvaluationResult, EvaluationRound, FederatedModel

ByClient = Mapping[str, str]
BATCH = 1000


def contributor_of(client: Client) -> str:
    """The organisation, or the client when it belongs to none."""
    return EvaluationResult(client=client, organisation=client.organisation).contributor


def require_no_isolation(federated_model: FederatedModel, new: ByClient, *, min_contributors: int) -> None:
    """Raises IsolatesContributors when metrics of all these clients could not be shown.

    new: who contributes, by client.
    """
    isolation = isolation_beside_shown(federated_model, new, min_contributors=min_contributors)
    if isolation is not None:
        raise IsolatesContributors(isolation)


def isolation_beside_shown(
    federated_model: FederatedModel, new: ByClient, *, min_contributors: int
) -> str | None:
    """Why metrics of `new` cannot be shown beside those that are; None when they can.

    Whatever was asked and of which weights: those of an upload can be made to answer alike, and the number of examples
    is part of every answer.
    """
    if not conf.current().evaluation_refuse_isolation:
        return None
    shown = _shown(federated_model)
    isolation = isolation_of(new, list(shown.values()), min_contributors=min_contributors)
    return None if isolation is None else _in_words(isolation, list(shown))


def _shown(federated_model: FederatedModel) -> dict[int, dict[str, str]]:
    """The contributors to each evaluation that the owner was shown, the newest first; of several by the same, one.

    Those of the developer's other models too, since a clone asks the same clients; and of models that are deleted or
    belong to somebody else now.
    """
    disclosures = Disclosure.objects.filter(observer=federated_model.developer_id).order_by("-evaluation")
    shown: dict[int, dict[str, str]] = {}
    for row in disclosures.values_list("evaluation", "client", "contributor").iterator():
        shown.setdefault(row[0], {})[str(row[1])] = row[2]
    distinct = {frozenset(by_client): pk for pk, by_client in reversed(shown.items())}
    return {pk: by_client for pk, by_client in shown.items() if distinct[frozenset(by_client)] == pk}


def remember_shown(evaluation: EvaluationRound, contributing: Sequence[EvaluationResult]) -> None:
    """Keep who is part of what the owner of the model is shown from now on."""
    Disclosure.objects.bulk_create(
        [
            Disclosure(
                observer=evaluation.federated_model.developer_id,
                evaluation=evaluation.pk,
                client_id=result.client_id,
                contributor=result.contributor,
            )
            for result in contributing
        ],
        batch_size=BATCH,
    )


def remember_new_observer(federated_model: FederatedModel, observer: User) -> None:
    """Keep that somebody else sees what was shown of this model. To be called before it changes hands."""
    shown = Disclosure.objects.filter(
        observer=federated_model.developer_id,
        evaluation__in=federated_model.evaluations.order_by().values("pk"),
    )
    Disclosure.objects.bulk_create(
        [
            Disclosure(
                observer=observer.pk,
                evaluation=row.evaluation,
                client_id=row.client_id,
                contributor=row.contributor,
            )
            for row in shown.iterator()
        ],
        batch_size=BATCH,
        ignore_conflicts=True,
    )


def _in_words(isolation: Isolation, evaluations: list[int]) -> str:
    if isolation.shown is None:
        return "together with evaluations that were shown, it would speak of one contributor alone"
    return (
        f"it would differ from evaluation {evaluations[isolation.shown]}, which was shown, by "
        f"{isolation.num_contributors} contributors, of whom the difference would speak; choose the same clients, or "
        "ones that differ by more"
    )
