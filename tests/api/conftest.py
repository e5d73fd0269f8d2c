"""The server in process: callers of each kind, and a store in a folder of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from fma_django.rates import of_this_process
from tests.api.callers import as_client, as_user
from tests.records import make_client, make_model, make_user


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, settings: Settings) -> Path:
    """The folder of the blob store."""
    folder = tmp_path / "storage"
    settings.FMA_STORAGE_URL = folder.as_uri()
    return folder


@pytest.fixture(autouse=True)
def _forget_what_processes_keep() -> Iterator[None]:
    """The rates of callers, and the populations of models: ids come again in the next test."""
    of_this_process.forget()
    cache.clear()
    yield
    of_this_process.forget()
    cache.clear()


@pytest.fixture
def alice(db: None) -> Any:
    """The developer who owns `model`."""
    return make_user("alice")


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice)


@pytest.fixture
def ann(model: FederatedModel) -> Registration:
    """A client that is registered with `model`."""
    return make_client(model)


@pytest.fixture
def owner(alice: Any) -> APIClient:
    """Requests as alice."""
    return as_user(alice)


@pytest.fixture
def device(ann: Registration) -> APIClient:
    """Requests as ann."""
    return as_client(ann)


@pytest.fixture
def anonymous(db: None) -> APIClient:
    return APIClient(raise_request_exception=False)
