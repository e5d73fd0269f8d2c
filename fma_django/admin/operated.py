"""Rows that say what happened, and that whoever may change models may act on."""

from typing import Any, TypeVar

from django.contrib.admin.utils import unquote
from django.db.models import Model
from django.http import HttpRequest

from fma_django.admin.history import HistoryAdmin

ModelT = TypeVar("ModelT", bound=Model)


class OperatedAdmin(HistoryAdmin[ModelT]):
    """Offers its actions to users who may change models."""

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("fma_django.change_federatedmodel"))


class OperatedWhileOpenAdmin(OperatedAdmin[ModelT]):
    """Offers them for rows that are open, and for no others."""

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        row: Any = self.get_object(request, unquote(object_id))
        return offered if row is not None and row.is_open else []
