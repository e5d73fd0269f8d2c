"""The pages: allauth's views in the theme of the admin, with limits for guesses, and one event for each change."""

from typing import Any, cast

import structlog
from allauth.account.internal.decorators import login_stage_required
from allauth.mfa.base.views import IndexView
from allauth.mfa.recovery_codes.views import GenerateRecoveryCodesView, ViewRecoveryCodesView
from allauth.mfa.stages import AuthenticateStage
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic.edit import FormView
from rest_framework.exceptions import Throttled

from fma_api.login_adapter import has_changed
from fma_api.oidc import proof
from fma_api.problems import too_many_logins, with_code
from fma_api.second_factor.forms import SEED, CodeForm, TurnOffForm, TurnOnForm, asks_for_password
from fma_api.v1.accounts.codes import lacks_second_factor, note_second_factor
from fma_django.accounts import second_factor

log = structlog.get_logger(__name__)


class Page:
    """A page of the admin whose forms are limited; a form that comes back is a failure."""

    title: str
    request: HttpRequest

    @method_decorator(sensitive_post_parameters())
    @method_decorator(never_cache)
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response: HttpResponseBase = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        except Throttled as error:
            log.warning("second_factor_refused", reason=str(error.detail))
            return too_many_logins(request, error)
        if request.method == "POST" and response.status_code == 200:
            log.warning("second_factor_failed", path=request.path_info)
            response.status_code = 403
            with_code(response, "wrong_second_factor")
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)  # type: ignore[misc]
        return {**admin.site.each_context(self.request), "title": self.title, **context}


@method_decorator(
    login_stage_required(stage=AuthenticateStage.key, redirect_urlname="account_login"), name="dispatch"
)
class AskPage(Page, FormView):  # type: ignore[type-arg]
    """The page of a login that waits for a code."""

    title = "Second factor"
    template_name = "fma_api/second_factor/ask.html"
    form_class = CodeForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if has_changed(request, self._stage.login.user):
            return cast("HttpResponse", self._stage.abort())
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "user": self._stage.login.user}

    def form_valid(self, form: CodeForm) -> HttpResponse:
        note_second_factor(self.request, form.user)
        return cast("HttpResponse", self._stage.exit())

    @property
    def _stage(self) -> Any:
        return self.request._login_stage  # type: ignore[attr-defined]


@method_decorator(login_required, name="dispatch")
class OverviewPage(Page, IndexView):
    title = "Second factor"
    template_name = "fma_api/second_factor/overview.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().get_context_data(**kwargs), "is_missing": lacks_second_factor(self.request)}


@method_decorator(login_required, name="dispatch")
class TurnOnPage(Page, ActivateTOTPView):
    title = "Turn on your second factor"
    template_name = "fma_api/second_factor/turn_on.html"
    form_class = TurnOnForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not (asks_for_password(cast("User", request.user)) or proof.is_recent(request)):
            return proof.ask(request)
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: TurnOnForm) -> HttpResponse:
        try:
            with transaction.atomic():  # nobody sees the second factor before its first code is used
                response: HttpResponse = super().form_valid(form)
                second_factor.note_first_step(form.user, form.step)
        except IntegrityError:  # another request has just turned one on
            return redirect("mfa_index")
        note_second_factor(self.request, form.user)
        del self.request.session[SEED]
        log.info("second_factor_on", user=form.user.pk)
        return response


@method_decorator(login_required, name="dispatch")
class TurnOffPage(Page, DeactivateTOTPView):
    title = "Turn off your second factor"
    template_name = "fma_api/second_factor/turn_off.html"
    form_class = TurnOffForm

    def get_form_kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = super().get_form_kwargs()
        return kwargs if self.request.method == "POST" else {**kwargs, "data": None}

    def form_valid(self, form: TurnOffForm) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        log.warning("second_factor_off", user=form.user.pk)
        return response


@method_decorator(login_required, name="dispatch")
class NewCodesPage(Page, GenerateRecoveryCodesView):
    title = "New recovery codes"
    template_name = "fma_api/second_factor/new_codes.html"
    form_class = CodeForm

    def form_valid(self, form: CodeForm) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        log.info("recovery_codes_made", user=cast("User", self.request.user).pk)
        return response


@method_decorator(login_required, name="dispatch")
class CodesPage(Page, ViewRecoveryCodesView):
    title = "Recovery codes"
    template_name = "fma_api/second_factor/codes.html"
