"""The caller of a request as one of two kinds, and what may be asked of each."""

from typing import Any, cast

from django.contrib.auth.models import User
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from fma_django.accounts.grants import may, may_change_experiment, organisations_of, organisations_where
from fma_django.accounts.roles import RUN_EXPERIMENTS
from fma_django.models import Client, FederatedModel
from fma_django.record.queries.visible import sees_all_clients


def client_of(request: Request) -> Client | None:
    caller = cast("object", request.user)  # its stub knows Django's users only
    return caller if isinstance(caller, Client) else None


def user_of(request: Request) -> User | None:
    return request.user if isinstance(request.user, User) else None


def organisations_shown(request: Request, federated_model: FederatedModel) -> frozenset[int] | None:
    """The organisations whose clients a user sees in the rows of a model; None: everybody's."""
    user = request.user
    if not isinstance(user, User) or sees_all_clients(user, federated_model):
        return None
    return organisations_of(user)


class IsUser(BasePermission):
    """Developers and staff; not clients."""

    message = "This is for users of the server, not for clients."

    def has_permission(self, request: Request, view: Any) -> bool:
        return user_of(request) is not None


class MayRunExperiments(IsUser):
    """Users who may run experiments, for making one."""

    message = "This needs the permission to run experiments, which the role 'data scientist' has."

    def has_permission(self, request: Request, view: Any) -> bool:
        user = user_of(request)
        return user is not None and may(user, RUN_EXPERIMENTS)


class MayChangeExperiment(IsUser):
    """Users, for what they may see of an experiment; to change it, its owner, or whoever may change all."""

    message = "You may see this, but not change it."

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        user = user_of(request)
        if request.method in SAFE_METHODS or user is None:  # what a client may do is decided elsewhere
            return True
        federated_model: FederatedModel = getattr(obj, "federated_model", obj)
        deleting = obj is federated_model and request.method == "DELETE"
        return may_change_experiment(user, federated_model, deleting=deleting)


class Permitted(IsUser):
    """Users with the permission that the view names for its action, everywhere or in an organisation.

    What an organisation's member may do to which row, the record decides.
    """

    message = "This needs a permission that none of your roles has."

    def has_permission(self, request: Request, view: Any) -> bool:
        user = user_of(request)
        if user is None:
            return False
        permission = view.permission_of.get(view.action)
        return permission is None or may(user, permission) or bool(organisations_where(user, permission))


class IsUserOrClient(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return user_of(request) is not None or client_of(request) is not None


class IsClient(BasePermission):
    message = "This is for clients; register one first."

    def has_permission(self, request: Request, view: Any) -> bool:
        return client_of(request) is not None
