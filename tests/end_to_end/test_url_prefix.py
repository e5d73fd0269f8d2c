"""Behind a reverse proxy that shows the server below a path, every link leads to the server."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import numpy as np
import pytest

from fma_api.url_prefix import parsed
from fma_connect import Client, DeveloperClient
from tests.servers.fma import Env, FmaServer, StartFma, User
from tests.servers.reverse_proxy import ReverseProxy

pytestmark = pytest.mark.processes

PREFIX = "/fl"
# Which server, and what the proxy does. With each server all pages are walked through one proxy. The path is read once,
# before any page is, and through the other proxy the pages to begin with are enough.
WHOLE = ("setting, stripped", "header, passed on")
WAYS = {
    "setting, stripped": ("with_setting", {"strips": True, "says": False}),
    "setting, passed on": ("with_setting", {"strips": False, "says": False}),
    "header, stripped": ("trusting", {"strips": True, "says": True}),
    "header, passed on": ("trusting", {"strips": False, "says": True}),
}
PASSWORD = "a-long-password-1"
LINK = re.compile(r"""(?:href|src|action)\s*=\s*["']([^"'#]+)["']""")
# One page of each kind is enough of what has a page for each row.
ROW = re.compile(r"/\d+(?=/)|/[0-9a-f-]{36}(?=/)")


@dataclass(frozen=True)
class Served:
    """A server behind proxies, and a user who may see everything."""

    server: FmaServer
    root: User


def served(folder: Path, env: Env) -> Iterator[Served]:
    with ExitStack() as stack:
        server = StartFma(folder, stack)(env={"FMA_TRUST_PROXY": "true", **env})
        yield Served(server, server.install.add_user("root", staff=True, password=PASSWORD))


@pytest.fixture(scope="module")
def with_setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from served(tmp_path_factory.mktemp("setting"), {"FMA_URL_PREFIX": f"{PREFIX}/"})


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from served(tmp_path_factory.mktemp("trusting"), {})


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[tuple[ReverseProxy, Served, bool]]:
    name, how = WAYS[request.param]
    behind: Served = request.getfixturevalue(name)
    with ReverseProxy(behind.server.base_url, PREFIX, **how) as proxy:
        yield proxy, behind, request.param in WHOLE


def train(url: str, token: str, folder: Path) -> int:
    """A model that has been through a round, by the Python clients."""
    with DeveloperClient(url, token=token) as anna:
        model = int(anna.create_model("first", allow_aggregation=True)["id"])
        anna.set_initial_model(model, {"w": np.zeros(3, np.float32)})
        with Client(url, model, credential_file=folder / "client.json") as client:
            client.register()
            client.push({"w": np.ones(3, np.float32)}, num_examples=3, metrics={"loss": 0.5})
            assert client.wait_for_next(timeout_s=30) is not None
            client.push({"w": np.full(3, 2, np.float32)}, num_examples=3)
    return model


def links_in(answer: httpx.Response) -> list[str]:
    found = [answer.headers[name] for name in ("location", "content-location") if name in answer.headers]
    found += re.findall(r"<([^>]*)>", answer.headers.get("link", ""))
    kind = answer.headers.get("content-type", "")
    if "html" in kind:
        found += [unescape(link) for link in LINK.findall(answer.text)]
    elif "javascript" in kind and "script" in str(answer.url.query):  # of the API's documentation
        found += re.findall(r"""url: ["']([^"']+)["']""", answer.text)
    elif "json" in kind and "schema" not in str(answer.url):
        found += list(_urls_of(answer.json()))
    return found


def _urls_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _urls_of(member)
    elif isinstance(value, str) and re.match(r"(https?:/)?/[\w/.:?=&-]+$", value):
        yield value


def walk(browser: httpx.Client, proxy: ReverseProxy, starts: list[str], *, is_whole: bool) -> dict[str, int]:
    """Every page that can be reached from `starts`, or those that they link to, one of each kind, with its status."""
    seen: dict[str, int] = {}
    kinds: set[str] = set()
    left = [*starts]
    while left:
        url = left.pop()
        kind = ROW.sub("/N", urlsplit(url).path)  # one query: lists have a link for each filter and order
        if kind in kinds or "logout" in url:
            continue
        kinds.add(kind)
        answer = browser.get(url)
        seen[url] = answer.status_code
        for link in links_in(answer) if is_whole or url in starts else []:
            following = urljoin(url, link)
            if following.startswith(f"{proxy.origin}/"):
                left.append(following.partition("#")[0])
    return seen


@pytest.mark.slow
def test_every_link_leads_to_the_server(
    way: tuple[ReverseProxy, Served, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fma_connect.uploads.LEAST_BYTES", 1)  # in parts
    proxy, behind, is_whole = way
    model = train(proxy.url, behind.root.token, tmp_path)
    with httpx.Client(follow_redirects=False, timeout=30, trust_env=False) as browser:
        login = browser.get(proxy.url, follow_redirects=True)
        csrf = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', login.text)[0]
        said = {"username": "root", "password": PASSWORD, "csrfmiddlewaretoken": csrf}
        after = browser.post(login.url, data=said, headers={"Origin": proxy.origin})
        assert after.status_code == 302, after.text
        assert {cookie.path for cookie in browser.cookies.jar} == {f"{PREFIX}/"}
        assert {cookie.name for cookie in browser.cookies.jar} == {"fma_session+fl", "fma_csrf+fl"}
        # What a server at / has given the same browser.
        for name in ("fma_session", "fma_csrf"):
            browser.cookies.set(name, "of-another-server", domain="127.0.0.1", path="/")
        api = f"{proxy.url}api/v1/"
        starts = [
            proxy.url,
            f"{proxy.url}admin/",
            f"{proxy.url}admin/second-factor/",
            f"{proxy.url}admin/fma_django/modelaggregate/",
            f"{proxy.url}api/docs/",
            f"{proxy.url}readyz",
            f"{api}models/?page_size=1",
            f"{api}model_updates/?page_size=1",
            f"{api}models/{model}/get_latest_aggregate/",
            f"{api}models/{model}/get_current_artifact/",
            f"{api}models/{model}/rounds/",
            f"{api}models/{model}/metrics/?format=csv",
        ]

        seen = walk(browser, proxy, starts, is_whole=is_whole)

        schema = browser.get(f"{proxy.url}api/schema/?format=json").json()

    assert proxy.strays == []
    assert {url: status for url, status in seen.items() if status >= 400} == {}
    assert schema["servers"] == [{"url": PREFIX}]
    paths = {urlsplit(url).path for url in seen}
    for part in (
        "/static/unfold/",
        "/static/drf_spectacular_sidecar/",
        "/admin/fma_django/round/",
        "/admin/second-factor/on/",
        "/weights/",
    ):
        assert any(path.startswith(PREFIX) and part in path for path in paths), part
    assert len(seen) > (80 if is_whole else 40)


def test_a_header_of_anybody_is_not_believed(fma_server: StartFma) -> None:
    server = fma_server(worker=False)
    for said in ("/fl", "//evil.example", "/a,/b"):
        answer = httpx.get(server.base_url, headers={"X-Forwarded-Prefix": said})
        assert answer.headers["location"] == "/admin/"


@pytest.mark.parametrize(
    ("said", "location"),
    [
        ("/fl", "/fl/admin/"),
        ("/a/b-c/", "/a/b-c/admin/"),
        ("/first, /fl", "/fl/admin/"),
        ("//evil.example", "/admin/"),
        ("https://evil.example", "/admin/"),
        ("/fl\\..", "/admin/"),
        ("", "/admin/"),
    ],
)
def test_a_prefix_of_the_header_is_a_path(trusting: Served, said: str, location: str) -> None:
    answer = httpx.get(trusting.server.base_url, headers={"X-Forwarded-Prefix": said})
    assert answer.headers["location"] == location


def test_a_slash_at_the_end_of_the_setting_makes_no_difference() -> None:
    assert parsed("/fl/") == parsed("/fl") == "/fl"
