"""Every page of the admin has the policy that forbids inline scripts."""

from collections.abc import Iterator
from importlib import import_module
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
    import_module("fma_api.urls")  # which fills the admin's site
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


@pytest.mark.untraced
def test_every_page_has_every_header_and_no_inline_script(browser: Browser, rows: None) -> None:
    urls = list(every_url())
    assert len(urls) > 80
    for url in urls:
        response = browser.get(url)
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        assert response.status_code < 500, url
        assert response.headers[POLICY] == (ADMIN_PAGE if is_page else NO_PAGE), url
        assert {name for name in HEADERS if name not in response.headers} == set(), url
        content = response.content.decode() if is_page else ""
        inline = ("<script>", "javascript:", " onclick=", " onchange=", " onload=")
        assert not [text for text in inline if text in content], url
