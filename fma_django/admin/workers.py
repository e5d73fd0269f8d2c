"""Workers: which processes aggregate, and which have gone silent."""

from datetime import timedelta
from typing import Any

from django.contrib.admin import SimpleListFilter, display, register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from fma_django import conf
from fma_django.admin.durations import ago, between
from fma_django.admin.history import HistoryAdmin
from fma_django.admin.labels import label
from fma_django.models import Worker


def alive_workers() -> QuerySet[Worker]:
    seconds = conf.current().worker_seen_s
    return Worker.objects.filter(seen_on__gte=timezone.now() - timedelta(seconds=seconds))


class AliveFilter(SimpleListFilter):
    title = "state"
    parameter_name = "alive"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Alive"), ("no", "Silent")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Worker]) -> QuerySet[Worker]:
        if self.value() == "yes":
            return queryset.filter(pk__in=alive_workers())
        return queryset.exclude(pk__in=alive_workers()) if self.value() == "no" else queryset


@register(Worker)
class WorkerAdmin(HistoryAdmin[Worker]):
    list_display = ("name", "state", "seen", "started_on", "ran_for")
    list_filter = (AliveFilter,)
    search_fields = ("name",)
    search_help_text = "Host or process number"
    fields = ("name", "state", "seen", "seen_on", "started_on", "ran_for")
    readonly_fields = ("state", "seen", "ran_for")

    @display(description="state", ordering="seen_on")
    def state(self, row: Worker) -> str:
        silence = timezone.now() - row.seen_on
        is_alive = silence.total_seconds() <= conf.current().worker_seen_s
        return label("alive", "success") if is_alive else label("silent", "danger")

    @display(description="last seen", ordering="seen_on")
    def seen(self, row: Worker) -> str:
        return ago(row.seen_on)

    @display(description="ran for")
    def ran_for(self, row: Worker) -> str:
        return between(row.started_on, row.seen_on)
