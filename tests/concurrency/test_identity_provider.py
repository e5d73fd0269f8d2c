"""While one thread waits for an identity provider that is slow, the others do not."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from allauth.socialaccount.providers.oauth2.client import OAuth2Error

from fma_api.oidc.discovery import Discovery
from fma_django import outgoing


def test_others_do_not_wait_for_a_slow_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    is_asked, is_over = Event(), Event()

    def fetch(url: str) -> bytes:
        is_asked.set()
        is_over.wait(30)
        raise outgoing.RequestFailed("no whole answer in time")

    monkeypatch.setattr(outgoing, "fetch", fetch)
    discovery = Discovery("https://idp.example.org")
    with ThreadPoolExecutor(4) as threads:
        threads.submit(discovery.description)
        assert is_asked.wait(10)
        answers = [threads.submit(discovery.description) for _ in range(3)]
        try:
            errors = [answer.exception(timeout=10) for answer in answers]
        finally:
            is_over.set()

    assert [str(error) for error in errors] == ["the provider has not answered yet"] * 3
    assert all(isinstance(error, OAuth2Error) for error in errors)
