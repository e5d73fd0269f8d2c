"""The admin site: open to whoever has the permission to use it, which roles give."""

from typing import Any, cast

import structlog
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import Throttled
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from fma_api.problems import too_many_logins
from fma_django.accounts.roles import USE_ADMIN_SITE

log = structlog.get_logger(__name__)


class LoginForm(AuthenticationForm):
    def confirm_login_allowed(self, user: AbstractBaseUser) -> None:
        """Raises ValidationError, with the sentence for a wrong password: it tells a guesser nothing."""
        if not user.is_active or not user.has_perm(USE_ADMIN_SITE):  # type: ignore[attr-defined]
            raise ValidationError(
                self.error_messages["invalid_login"],
                code="invalid_login",
                params={"username": self.username_field.verbose_name},
            )


class AdminSite(UnfoldAdminSite):
    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        from fma_api.v1.accounts.codes import lacks_second_factor  # knows models, which are not there yet

        user = request.user
        return user.is_active and user.has_perm(USE_ADMIN_SITE) and not lacks_second_factor(request)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the page; a wrong old password counts as one at the login, since a session may be somebody else's."""
        from fma_api.v1.limits import Guesses

        if request.method != "POST":
            return cast("HttpResponse", super().password_change(request, extra_context))
        guesses = Guesses(request, account=request.user.get_username())
        try:
            guesses.count()
            with guesses.checked():
                response: Any = super().password_change(request, extra_context)
        except Throttled as error:
            log.warning("password_change_refused", reason=str(error.detail))
            return too_many_logins(request, error)
        if response.status_code == 302 or "old_password" not in response.context_data["form"].errors:
            guesses.give_back()
        return cast("HttpResponse", response)
