"""The rows that a caller may see; no other module decides it.

A user with the permission to view a kind of row sees all of them; with that permission in an organisation, what its
own clients sent, and the models that these are registered with; a developer what belongs to own models; a client what
belongs to the models that it is registered with, and of what clients send only its own; anybody else nothing.
Evaluations are also seen by the members of an organisation that was asked, and by no client that was not; what one
client answered is seen by itself and by members of its own organisation, and by nobody else. Whoever sees a row because
of an organisation sees no client of another one in it. An upload is seen by its sender alone: the client, or the
developer as long as the model is one that it sees. A user whose token is for one model sees of all this what belongs to
that model.
"""

from typing import TypeVar

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from fma_django.accounts.grants import may, only_model, organisations_where, permission_to_view
from fma_django.models import (
    Client,
    ClientAggregateScore,
    EvaluationResult,
    EvaluationRound,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Upload,
)

Caller = AbstractBaseUser | AnonymousUser | Client
Row = TypeVar("Row", bound=Model)

PATH_TO_MODEL: dict[type[Model], str] = {
    FederatedModel: "",
    ModelAggregate: "federated_model__",
    ModelArtifact: "federated_model__",
    ModelUpdate: "federated_model__",
    ClientAggregateScore: "aggregate__federated_model__",
    EvaluationRound: "federated_model__",
    EvaluationResult: "evaluation__federated_model__",
    Upload: "federated_model__",
}
SENT_BY_CLIENTS = (ModelUpdate, ClientAggregateScore, EvaluationResult, Upload)


def visible_to(caller: Caller, rows: QuerySet[Row], *, as_member: bool = True) -> QuerySet[Row]:
    """The rows that the caller may see.

    as_member: whether a role in an organisation shows them. Say False where a row tells of everybody's clients.
    """
    if isinstance(caller, Client):
        if issubclass(rows.model, SENT_BY_CLIENTS):
            return rows.filter(client=caller)
        of_registered = Q(**{f"{PATH_TO_MODEL[rows.model]}clients": caller})
        return (
            rows.filter(of_registered, clients=caller) if _is_evaluation(rows) else rows.filter(of_registered)
        )
    if not isinstance(caller, AbstractBaseUser):
        return rows.none()
    if (only := only_model(caller)) is not None:
        rows = rows.filter(**{f"{PATH_TO_MODEL[rows.model]}pk": only})
    if issubclass(rows.model, Upload):
        rows = rows.filter(developer=caller.pk)
    if issubclass(rows.model, EvaluationResult):
        return rows.filter(organisation__members=caller.pk)
    permission = permission_to_view(rows.model)
    if may(caller, permission):
        return rows
    owned = _owned_by(caller, rows)
    if as_member and (organisations := organisations_where(caller, permission)):
        owned |= _of_organisations(organisations, rows)
    if _is_evaluation(rows):
        asked = Client.objects.filter(evaluations=OuterRef("pk"), organisation__members=caller.pk)
        return rows.filter(owned | Q(Exists(asked)))
    return rows.filter(owned)


def sees_all_clients(user: AbstractBaseUser, federated_model: FederatedModel) -> bool:
    """Whether a user sees everybody's clients in the rows of a model: its owner, and whoever may view all models.

    Others, who see such rows because of an organisation, see the clients of their organisations in them.
    """
    return federated_model.developer_id == user.pk or may(user, permission_to_view(FederatedModel))


def _owned_by(caller: AbstractBaseUser, rows: QuerySet[Row]) -> Q:
    path = PATH_TO_MODEL[rows.model]
    if not path:
        return Q(developer=caller.pk)
    # Not joined: SQLite would begin with the caller's models, and sort all that belongs to them for the newest ten.
    own = FederatedModel.objects.filter(pk=OuterRef(path.removesuffix("__")), developer=caller.pk)
    return Q(Exists(own))


def _of_organisations(organisations: list[int], rows: QuerySet[Row]) -> Q:
    if issubclass(rows.model, SENT_BY_CLIENTS):
        return Q(client__organisation__in=organisations)
    # A client that waits for approval may name any organisation, and any model.
    registered = FederatedModel.clients.through.objects.filter(
        federatedmodel=OuterRef(f"{PATH_TO_MODEL[rows.model]}pk"),
        client__organisation__in=organisations,
        client__awaits_approval=False,
    )
    return Q(Exists(registered))


def _is_evaluation(rows: QuerySet[Row]) -> bool:
    return issubclass(rows.model, EvaluationRound)
