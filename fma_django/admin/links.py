"""Links from a row to its neighbours."""

from typing import Any

from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from fma_django.models.weights import WithWeights

NOTHING = "–"
WEIGHTS_ROUTES = {
    "modelupdate": "model_update-weights",
    "modelaggregate": "model_aggregate-weights",
    "modelartifact": "model_artifact-weights",
    "evaluationround": "evaluation-weights",
}


def link(url: str, text: object) -> str:
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


def link_to(row: Model | None, text: object = None) -> str:
    """The page of a row; a dash when there is none."""
    if row is None:
        return NOTHING
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[quote(row.pk)])
    return link(url, row if text is None else text)


def list_url(model: type[Model], **filters: Any) -> str:
    """The list of a model's rows, with its filters set."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def catalogue_link() -> str:
    """Where the API lists the parts that models can be given; nothing in a project that serves no API."""
    try:
        url = reverse("algorithms")
    except NoReverseMatch:
        return ""
    return format_html(
        '<a class="text-link" href="{}">Every part with its parameters, source and least number of updates (JSON)</a>',
        url,
    )


def csv_url(federated_model: Model) -> str:
    """The address of a model's metrics as CSV; "" in a project that serves no API."""
    try:
        return f"{reverse('model-metrics', args=[federated_model.pk])}?format=csv"
    except NoReverseMatch:
        return ""


def state_link(row: Model) -> str:
    """Where the API gives what an aggregate's strategy keeps."""
    try:
        url = reverse("model_aggregate-state", args=[row.pk])
    except NoReverseMatch:
        return NOTHING
    return format_html(
        '<a class="text-link" href="{}" aria-label="State of {} as safetensors">safetensors</a>', url, row
    )


def weights_link(row: WithWeights) -> str:
    """Where the API gives the weights of a row as JSON; a dash in a project that serves no API."""
    try:
        url = reverse(WEIGHTS_ROUTES[str(row._meta.model_name)], args=[row.pk])
    except NoReverseMatch:
        return NOTHING
    return format_html('<a class="text-link" href="{}" aria-label="Weights of {} as JSON">JSON</a>', url, row)
