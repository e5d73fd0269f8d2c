"""The caller of a request as one of two kinds, and what may be asked of each."""

from typing import Any, cast

from django.contrib.auth.models import User
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from fma_django.models import Client


def client_of(request: Request) -> Client | None:
    caller = cast("object", request.user)  # its stub knows Django's users only
    return caller if isinstance(caller, Client) else None


def user_of(request: Request) -> User | None:
    return request.user if isinstance(request.user, User) else None


class IsUser(BasePermission):
    """Developers and staff; not clients."""

    message = "This is for users of the server, not for clients."

    def has_permission(self, request: Request, view: Any) -> bool:
        return user_of(request) is not None


class IsStaff(BasePermission):
    message = "This is for the server's staff."

    def has_permission(self, request: Request, view: Any) -> bool:
        user = user_of(request)
        return user is not None and user.is_staff


class IsUserOrClient(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return user_of(request) is not None or client_of(request) is not None


class IsClient(BasePermission):
    message = "This is for clients; register one first."

    def has_permission(self, request: Request, view: Any) -> bool:
        return client_of(request) is not None
