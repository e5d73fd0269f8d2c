"""The two schedules of the worker, made (or put right) by `migrate`."""

from typing import Any


def create(**_kwargs: Any) -> None:
    from django_q.models import Schedule

    for name, func, minutes in (
        ("fma: rounds to take up again", "fma_django.work.tasks.sweep_rounds", 1),
        ("fma: files that nothing refers to", "fma_django.work.tasks.sweep_files", 60),
    ):
        Schedule.objects.get_or_create(
            name=name,
            defaults={"func": func, "schedule_type": Schedule.MINUTES, "minutes": minutes, "repeats": -1},
        )
        # One that an earlier version made names its task as it was called then; how often it runs is the operator's.
        Schedule.objects.filter(name=name).exclude(func=func).update(func=func)
