"""The roles that every installation begins with: named sets of Django's permissions, kept as groups.

A role counts for the whole installation when a user is in the group, and for one organisation's own clients when a
membership names it. People may edit these roles and make others. The owner is no role: it is Django's superuser, who
has every permission. `python -m fma_django.accounts.roles` prints the table as the page docs/reference/roles.md.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

USE_ADMIN_SITE = "fma_django.use_admin_site"
RUN_EXPERIMENTS = "fma_django.add_federatedmodel"
CHANGE_EXPERIMENTS = "fma_django.change_federatedmodel"
DELETE_EXPERIMENTS = "fma_django.delete_federatedmodel"
CHANGE_CLIENT = "fma_django.change_client"

RECORD = (
    "federatedmodel",
    "round",
    "configversion",
    "modelupdate",
    "modelaggregate",
    "modelartifact",
    "clientaggregatescore",
    "evaluationround",
    "participation",
    "client",
    "clienterror",
    "clienttelemetry",
    "organisation",
    "membership",
    "invitation",
    "tag",
    "upload",
    "worker",
)
VIEW_RECORD = tuple(f"fma_django.view_{name}" for name in RECORD)
TASK_QUEUE = tuple(
    f"django_q.{verb}_{name}"
    for name in ("failure", "ormq", "schedule", "success")
    for verb in ("view", "change", "delete")
)


@dataclass(frozen=True)
class Role:
    """One preset. permissions: as Django writes them, `app.codename`."""

    name: str
    doc: str
    permissions: tuple[str, ...]


PRESETS: tuple[Role, ...] = (
    Role(
        "organisation admin",
        "Manages the users, the clients and the description of an organisation.",
        (
            *VIEW_RECORD,
            USE_ADMIN_SITE,
            "auth.view_user",
            "auth.add_user",
            "auth.change_user",
            "auth.view_group",
            "admin.view_logentry",
            "fma_django.add_client",
            "fma_django.change_client",
            "fma_django.add_invitation",
            "fma_django.delete_invitation",
            "fma_django.change_organisation",
            "fma_django.add_membership",
            "fma_django.change_membership",
            "fma_django.delete_membership",
            "fma_django.add_tag",
        ),
    ),
    Role(
        "operator",
        "Keeps the server, its clients and all experiments running; manages no users.",
        (
            *VIEW_RECORD,
            *TASK_QUEUE,
            USE_ADMIN_SITE,
            CHANGE_EXPERIMENTS,
            "fma_django.change_round",
            "fma_django.change_evaluationround",
            "fma_django.delete_upload",
            "fma_django.add_client",
            "fma_django.change_client",
            "fma_django.add_invitation",
            "fma_django.delete_invitation",
            "fma_django.add_organisation",
            "fma_django.change_organisation",
            "fma_django.add_tag",
            "fma_django.change_tag",
            "fma_django.delete_tag",
        ),
    ),
    Role(
        "compliance officer",
        "Reads what an organisation's clients sent, and what became of it.",
        (*VIEW_RECORD, USE_ADMIN_SITE),
    ),
    Role("data scientist", "Creates experiments, and manages and reads their own.", (RUN_EXPERIMENTS,)),
    Role(
        "auditor",
        "Reads everything, users and roles included, and changes nothing.",
        (*VIEW_RECORD, USE_ADMIN_SITE, "auth.view_user", "auth.view_group", "admin.view_logentry"),
    ),
)
DATA_SCIENTIST = "data scientist"
NAMES = tuple(role.name for role in PRESETS)


def create_missing(using: str = "default", apps: Any = None, **_: object) -> None:
    """Create the presets that are not there; one that people have edited stays as it is.

    Called after each migration, when the permissions exist.
    """
    if apps is None:
        from django.apps import apps as current

        apps = current
    groups = apps.get_model("auth", "Group").objects.using(using)
    known = set(groups.filter(name__in=NAMES).values_list("name", flat=True))
    missing = [role for role in PRESETS if role.name not in known]
    if not missing:
        return
    ids = _ids_of_permissions(apps, using)
    for role in missing:
        group = groups.create(name=role.name)
        # A permission of an application that the project does not use is left out.
        group.permissions.set([ids[name] for name in role.permissions if name in ids])


def _ids_of_permissions(apps: Any, using: str) -> dict[str, int]:
    rows = apps.get_model("auth", "Permission").objects.using(using)
    return {
        f"{label}.{codename}": pk
        for pk, label, codename in rows.values_list("pk", "content_type__app_label", "codename")
    }


def as_markdown() -> str:
    """The page docs/reference/roles.md."""
    lines = [
        "# Roles",
        "",
        "A role is a named set of Django's permissions: a group. A user may have roles for the whole installation, and",
        "one role in each organisation that they belong to; the latter counts for the organisation's own clients, what",
        "these sent, and the models that they are registered with. Roles can be edited, and others made, in the admin",
        "and through the API; these presets cannot be deleted.",
        "",
        "| role | meaning |",
        "|---|---|",
        "| owner | Django's superuser: may do everything. The first user of an installation is one, and the last one "
        "can neither be removed nor lose the role. |",
        *(f"| {role.name} | {role.doc} |" for role in PRESETS),
        "| edge client | No user: a client trains and sends updates with its own credential, and sees the models that "
        "it is registered with. |",
        "",
        "## Permissions of each preset",
        "",
        f"| permission | {' | '.join(NAMES)} |",
        f"|---|{'---|' * len(NAMES)}",
    ]
    for permission in _all_permissions(PRESETS):
        cells = ("yes" if permission in role.permissions else "" for role in PRESETS)
        lines.append(f"| `{permission}` | {' | '.join(cells)} |")
    lines += ["", "This page is written by `python -m fma_django.accounts.roles > docs/reference/roles.md`."]
    return "\n".join(lines) + "\n"


def _all_permissions(roles: Collection[Role]) -> list[str]:
    return list(dict.fromkeys(permission for role in roles for permission in role.permissions))


if __name__ == "__main__":
    print(as_markdown(), end="")
