"""The forms of the second factor: a code is asked for with its limit, and turning it on asks for the password too."""

from typing import Any

from allauth.core import context
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import generate_totp_secret
from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from fma_api.v1.accounts.codes import accept_code
from fma_api.v1.limits import Guesses
from fma_django.accounts import second_factor
from fma_django.accounts.seal import Unreadable, seal, unseal

SEED = "fma_new_seed"
WRONG = "This code is wrong, or was used before."


class CodeInput(UnfoldAdminTextInputWidget):
    """A field that comes back empty: a wrong code is typed anew."""

    def format_value(self, value: Any) -> None:
        return None


def code_field(label: str, **attributes: str) -> forms.CharField:
    attributes = {"autocomplete": "one-time-code", "spellcheck": "false", **attributes}
    return forms.CharField(label=label, max_length=32, widget=CodeInput(attrs=attributes))


class CodeForm(forms.Form):
    """A code of the user."""

    code = code_field("Code", autofocus="")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        if not accept_code(context.request, self.user, code):
            raise forms.ValidationError(WRONG)
        return code


class TurnOffForm(CodeForm):
    def __init__(self, *args: Any, authenticator: Authenticator, **kwargs: Any) -> None:
        super().__init__(*args, user=authenticator.user, **kwargs)


def asks_for_password(user: User) -> bool:
    """Whether the user has a password that proves who they are; others prove it at the identity provider."""
    return bool(settings.FMA_PASSWORD_LOGIN and user.has_usable_password())


class TurnOnForm(forms.Form):
    """The first code of a new seed, and the password of whoever has one: an open session alone adds no second factor.

    The seed waits in the session, sealed, until the code shows that the app has it. step: of that code.
    """

    step: int

    password = forms.CharField(
        strip=False, widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password"})
    )
    code = code_field("Code that the app shows")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        if not asks_for_password(user):
            del self.fields["password"]
        session = context.request.session
        try:
            self.secret = unseal(session[SEED])
        except (KeyError, Unreadable):
            self.secret = generate_totp_secret()
            session[SEED] = seal(self.secret)

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        guesses = Guesses(context.request, account=self.user.get_username())
        guesses.count()
        with guesses.checked():
            if not self.user.check_password(password):
                raise forms.ValidationError("This is not your password.")
        guesses.give_back()
        return password

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        step = second_factor.step_of(self.secret, code)
        if step is None:
            raise forms.ValidationError(
                "This code is wrong: look whether the clocks of both sides are right."
            )
        self.step = step
        return code
