"""The admin site: open to whoever has the permission to use it, which roles give."""

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from fma_django.accounts.roles import USE_ADMIN_SITE


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
