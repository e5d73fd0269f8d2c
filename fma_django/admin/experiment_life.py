"""The actions of a model's page: starting, pausing and ending an experiment, cancelling its round, cloning it."""

from typing import Any, cast

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from fma_core.errors import FMAError
from fma_django.admin.confirmation import ask, is_confirmed
from fma_django.admin.refusals import RefusalsAdmin
from fma_django.admin.rounds import CANCEL
from fma_django.admin.themed import action
from fma_django.experiments import lifecycle
from fma_django.models import FederatedModel, Round
from fma_django.models.federated_model import ModelState
from fma_django.models.round import RoundState
from fma_django.rounds import publishing

PAUSE = {
    "button": "Pause",
    "consequence": "Updates are still accepted and wait; no round closes until the model is resumed.",
}
START = {
    "button": "Start",
    "consequence": "Clients are asked and rounds close by the model's rules; what waits already is used at once.",
}
RESUME = {
    "button": "Resume",
    "consequence": "Rounds close again when the requirement is met; one that meets it already closes at once.",
}
END = {
    "button": "End the experiment",
    "consequence": "Its clients are told that it is over. What they have sent in the open round will not be used.",
}
CLONE = {
    "button": "Clone",
    "consequence": "A new model with the same configuration and initial model, without clients and not started.",
}
OFFERED = {
    ModelState.CREATED: {"start_this", "cancel_this", "end_this", "clone_this"},
    ModelState.RUNNING: {"pause_this", "cancel_this", "end_this", "clone_this"},
    ModelState.PAUSED: {"resume_this", "cancel_this", "end_this", "clone_this"},
    ModelState.ENDED: {"start_this", "clone_this"},
}


def user_of(request: HttpRequest) -> User:
    return cast("User", request.user)


class ExperimentLifeAdmin(RefusalsAdmin[FederatedModel]):
    actions = ("pause_selected", "resume_selected", "cancel_selected")
    actions_detail = ("start_this", "resume_this", "pause_this", "cancel_this", "end_this", "clone_this")

    @action(description="Pause selected models", permissions=["change"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[FederatedModel]) -> None:
        for row in queryset:
            self._pause(request, row)

    @action(description="Resume selected models", permissions=["change"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[FederatedModel]) -> None:
        for row in queryset:
            self._resume(request, row)

    @action(description="Cancel the open round of selected models", permissions=["change"])
    def cancel_selected(
        self, request: HttpRequest, queryset: QuerySet[FederatedModel]
    ) -> HttpResponse | None:
        if not is_confirmed(request):
            return ask(self, request, queryset, question="Cancel the open round of these models?", **CANCEL)
        for row in queryset:
            self._cancel_round(request, row)
        return None

    @action(description="Start", permissions=["change"])
    def start_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Start this model?", START)
        self._do(request, row, lifecycle.start, "started")
        return HttpResponseRedirect(self._page(row))

    @action(description="Pause", permissions=["change"])
    def pause_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Pause this model?", PAUSE)
        self._pause(request, row)
        return HttpResponseRedirect(self._page(row))

    @action(description="Resume", permissions=["change"])
    def resume_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Resume this model?", RESUME)
        self._resume(request, row)
        return HttpResponseRedirect(self._page(row))

    @action(description="Cancel the open round", permissions=["change"])
    def cancel_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Cancel the open round of this model?", CANCEL)
        self._cancel_round(request, row)
        return HttpResponseRedirect(self._page(row))

    @action(description="End the experiment", permissions=["change"])
    def end_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "End this experiment?", END)
        self._do(request, row, lifecycle.cancel_experiment, "ended")
        return HttpResponseRedirect(self._page(row))

    def has_clone_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may add models may clone them."""
        return self.has_add_permission(request)

    @action(description="Clone", permissions=["clone"])
    def clone_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self._found(request, object_id)
        if not is_confirmed(request):
            return self._ask(request, row, "Clone this model?", CLONE)
        made = lifecycle.clone(row, developer=user_of(request))
        self.log_addition(request, made, f"Cloned from {row}.")
        self.message_user(request, f"{made} is made; it has not started.", messages.SUCCESS)
        return HttpResponseRedirect(self._page(made))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return []
        known = OFFERED[row.state]
        return [one for one in offered if any(one.action_name.endswith(f"_{name}") for name in known)]

    def _found(self, request: HttpRequest, object_id: str) -> FederatedModel:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def _page(self, row: FederatedModel) -> str:
        return reverse("admin:fma_django_federatedmodel_change", args=[row.pk])

    def _ask(
        self, request: HttpRequest, row: FederatedModel, question: str, texts: dict[str, str]
    ) -> HttpResponse:
        return ask(self, request, [row], question=question, cancel_url=self._page(row), **texts)

    def _pause(self, request: HttpRequest, row: FederatedModel) -> None:
        if row.allow_aggregation:
            self._do(request, row, lifecycle.pause, "paused")

    def _resume(self, request: HttpRequest, row: FederatedModel) -> None:
        if not row.allow_aggregation:
            self._do(request, row, lifecycle.resume, "resumed")

    def _do(self, request: HttpRequest, row: FederatedModel, change: Any, done: str) -> None:
        try:
            change(row)
        except FMAError as error:
            self.message_user(request, f"{row} is not {done}: {error.message}", messages.ERROR)
            return
        self.log_change(request, row, f"{done.capitalize()}.")
        self.message_user(request, f"{row} is {done}.", messages.SUCCESS)

    def _cancel_round(self, request: HttpRequest, row: FederatedModel) -> None:
        try:
            collecting = row.rounds.select_related("federated_model").get(state=RoundState.COLLECTING)
            publishing.cancel(collecting)
        except (FMAError, Round.DoesNotExist) as error:
            self.message_user(request, f"{row}: {getattr(error, 'message', error)}", messages.ERROR)
            return
        self.log_change(request, row, f"Cancelled {collecting}.")
        self.message_user(request, f"{collecting} of {row} is cancelled.", messages.SUCCESS)
