"""Every page of the admin has the policy that forbids inline scripts."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client as Browser
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse

from fma_api.security_headers import ADMIN_PAGE, HEADERS, NO_PAGE, POLICY

pytestmark = pytest.mark.django_db

NOT_ASKED = {"logout"}


def every_url() -> Iterator[str]:
    """Each address of the admin; those of rows, for a row of each model."""
    latest = {
        f"{model._meta.app_label}_{model._meta.model_name}": row.pk
        for model in admin.site._registry
        if (row := model._default_manager.order_by("pk").last()) is not None
    }
    for name in names_in(admin.site.get_urls()):
        if name in NOT_ASKED:
            continue
        key = next((key for key in latest if name.startswith(f"{key}_")), "")
        for arguments in ([], [latest.get(key)], ["fma_django"]):
            try:
                yield reverse(f"admin:{name}", args=arguments)
                break
            except NoReverseMatch:
                continue
        else:
            yield f"nothing reverses {name}"


def names_in(patterns: list[Any]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names_in(pattern.url_patterns)
        elif isinstance(pattern, URLPattern) and pattern.name:
            yield pattern.name


def test_every_page_has_every_header(browser: Browser, rows: None) -> None:
    urls = list(every_url())
    assert len(urls) > 80
    for url in urls:
        response = browser.get(url)
        policy = ADMIN_PAGE if response.headers.get("Content-Type", "").startswith("text/html") else NO_PAGE
        assert response.status_code < 500, url
        assert response.headers[POLICY] == policy, url
        assert {name for name in HEADERS if name not in response.headers} == set(), url


def test_no_page_has_an_inline_script(browser: Browser, rows: None) -> None:
    for url in every_url():
        response = browser.get(url)
        if response.status_code == 200 and "text/html" in response.headers["Content-Type"]:
            content = response.content.decode()
            assert "<script>" not in content, url
            assert "javascript:" not in content, url
            assert not [name for name in (" onclick=", " onchange=", " onload=") if name in content], url
