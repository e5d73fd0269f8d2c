"""Requests in process as each kind of caller, and a look at what they leave behind."""

from pathlib import Path
from typing import Any

from django.utils import timezone
from rest_framework.test import APIClient

from fma_api.front.responses import MAY_WAIT, is_kept
from fma_django.accounts.tokens import issue_token
from fma_django.clients.registration import Registration
from fma_django.models import ApiToken

API = "/api/v1/"
SAFETENSORS = "application/vnd.safetensors"


def as_user(user: Any) -> APIClient:
    """Requests with the user's token, whose use has been noted a moment ago."""
    token = issue_token(user)
    ApiToken.objects.filter(user=user).update(last_used_on=timezone.now())
    return as_token(token)


def as_token(token: str) -> APIClient:
    """Requests with this token."""
    return APIClient(raise_request_exception=False, headers={"authorization": f"Token {token}"})


def as_client(registration: Registration) -> APIClient:
    """Requests with the client's credential."""
    return APIClient(raise_request_exception=False, headers={"client-uuid": str(registration.credential)})


def stored_files(folder: Path) -> list[str]:
    """Every file in the store and its spool, except those of the store itself."""
    own = {".lock", ".owner", ".spool-id"}
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name not in own
    )


def wait_of(answer: Any) -> tuple[frozenset[str], float] | None:
    """The topics and the seconds that a front would keep the caller for; None when it would send the answer."""
    return (answer.topics, answer.seconds) if is_kept(answer, {MAY_WAIT: True}) else None
