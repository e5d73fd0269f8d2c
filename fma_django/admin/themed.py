"""The base of every admin class: unfold's, seen by the type checker as Django's, which it extends without types."""

from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib.admin import EmptyFieldListFilter, SimpleListFilter
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.db import transaction
from django.db.models import DateField, JSONField, Model
from django.http import HttpRequest, HttpResponse

from fma_django.admin.json_field import StorableJSONField
from fma_django.admin.once import once_per_row
from fma_django.admin.started_from import FIELD, StartedFromForm

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as _ModelAdmin
    from django.contrib.admin import action
else:
    from unfold.admin import ModelAdmin as UnfoldModelAdmin
    from unfold.decorators import action

    class _ModelAdmin(UnfoldModelAdmin):
        def __class_getitem__(cls, _model: Any) -> type:
            return cls


__all__ = ["ModelAdmin", "action"]

ModelT = TypeVar("ModelT", bound=Model)


class ModelAdmin(_ModelAdmin[ModelT]):
    """Refuses a form that was opened before somebody else changed the row; chooses several rows by checkboxes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.readonly_fields:
            part = getattr(self, str(name), None)
            if callable(part):
                setattr(self, str(name), once_per_row(part))

    def changeform_view(self, request: Any, object_id: Any = None, *args: Any, **kwargs: Any) -> HttpResponse:
        row = None
        if request.method == "POST" and object_id is not None:
            row = self.get_object(request, unquote(object_id))  # it knows which ids cannot be
        if row is None:
            return super().changeform_view(request, object_id, *args, **kwargs)
        with transaction.atomic():
            # Whether the form is stale is seen from here on, while nobody else can change the row.
            self.lock(row)
            return super().changeform_view(request, object_id, *args, **kwargs)

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        """Whether a filter in the address is one that the page offers.

        Django allows any lookup in any column, so that `?password__startswith=` tells a hash letter by letter.
        """
        return lookup in self._offered_lookups(request) and super().lookup_allowed(lookup, value, request)

    def lock(self, row: ModelT) -> None:
        """Keep everybody else from changing the row until this transaction is over."""
        # Not its key: whoever inserts a row that refers to this one need not wait.
        type(row)._base_manager.select_for_update(no_key=True).filter(pk=row.pk).first()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if self._is_edited(request, obj):
            form = kwargs.get("form", self.form)
            kwargs["form"] = type(form.__name__, (StartedFromForm, form), {})
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        return self.with_started_from(fieldsets, request, obj)

    def with_started_from(self, fieldsets: Any, request: HttpRequest, obj: Any) -> Any:
        """The fieldsets of a page, and the hidden field in the last one when the row can be edited."""
        if not self._is_edited(request, obj) or FIELD in flatten_fieldsets(fieldsets):
            return fieldsets
        *others, (title, options) = fieldsets
        return [*others, (title, {**options, "fields": (*options["fields"], FIELD)})]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, JSONField):
            kwargs["form_class"] = StorableJSONField
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # In a list of options, a click without Ctrl chooses that one and drops all others.
        from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

        elsewhere = (*self.get_autocomplete_fields(request), *self.filter_horizontal, *self.filter_vertical)
        if db_field.name not in elsewhere:
            kwargs.setdefault("widget", UnfoldAdminCheckboxSelectMultipleWidget())
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def _offered_lookups(self, request: HttpRequest) -> set[str]:
        offered = {f"{self.date_hierarchy}__{part}" for part in ("gte", "lt", "year", "month", "day")}
        for shown in self.get_list_filter(request):
            if isinstance(shown, type) and issubclass(shown, SimpleListFilter):
                offered.add(str(shown.parameter_name))
                continue
            column, kind = shown if isinstance(shown, tuple) else (shown, None)
            name = str(column)
            if kind is EmptyFieldListFilter:
                offered.add(f"{name}__isempty")
            elif isinstance(self.model._meta.get_field(name), DateField):
                offered |= {f"{name}__{end}" for end in ("gte", "lt", "isnull")}
            else:
                offered |= {name, *(f"{name}__{end}" for end in ("exact", "id__exact", "isnull"))}
        return offered

    def _is_edited(self, request: HttpRequest, obj: Any) -> bool:
        return obj is not None and self.has_change_permission(request, obj)
