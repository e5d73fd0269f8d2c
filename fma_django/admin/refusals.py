"""Forms that show an error of saving at the field that is at fault."""

from typing import Any, ClassVar, TypeVar

from django import forms
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from fma_core.errors import FMAError
from fma_django.admin.themed import ModelAdmin

ModelT = TypeVar("ModelT", bound=Model)


class RefusableForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's is generic to the type checker only
    refusal: ClassVar[FMAError | None] = None

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.refusal is not None:
            field = self.refusal.facts.get("field")
            self.add_error(field if field in self.fields else None, self.refusal.message)
        return cleaned


class RefusalsAdmin(ModelAdmin[ModelT]):
    """An admin whose `save_model` may raise FMAError: the form then comes back with the error in it.

    Changes are checked while their locks are held, so only an attempt tells. A refused attempt has rolled back;
    the form is shown by a second pass that knows the refusal and therefore saves nothing.
    """

    form = RefusableForm

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)  # a new class for each request
        form.refusal = getattr(request, "fma_refusal", None)
        return form

    def changeform_view(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except FMAError as error:
            request.fma_refusal = error
            return super().changeform_view(request, *args, **kwargs)
