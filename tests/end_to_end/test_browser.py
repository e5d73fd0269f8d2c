"""Pages in a real browser: none asks for what its Content-Security-Policy forbids."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers.chromium import chromium
from tests.servers.fma import FmaInstall, FmaServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PASSWORD = "a-long-password-1"
# One page of each kind is enough of what has a page for each row.
ROW = re.compile(r"/\d+(?=/)|/[0-9a-f-]{36}(?=/)")
INLINE = """() => {
    const script = document.createElement("script");
    script.textContent = "window.ranInline = true";
    document.body.appendChild(script);
    document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='window.ranInline = true'>");
    return new Promise(resolve => setTimeout(() => resolve(window.ranInline === true), 200));
}"""


class Visitor:
    """A browser that keeps each word of its console and each violation of a policy."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.violations: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.violations.append(f"{page.url}: {error}"))

    def _hear(self, message: "ConsoleMessage") -> None:
        # An address that is not there is no violation: pages of errors are visited, too.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.violations.append(f"{self.page.url}: {message.text}")

    def log_in(self, url: str) -> None:
        self.page.goto(f"{url}/admin/login/")
        self.page.fill("[name=username]", "root")
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("[type=submit]")
        self.page.wait_for_url("**/admin/")

    def visit_all(self, url: str, starts: list[str]) -> set[str]:
        """Each kind of page that can be reached from `starts`."""
        kinds: set[str] = set()
        left = [f"{url}{start}" for start in starts]
        while left:
            address = left.pop()
            kind = ROW.sub("/N", urlsplit(address).path)
            if kind in kinds or "logout" in kind:
                continue
            kinds.add(kind)
            self.page.goto(address, wait_until="load")
            links = self.page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
            ours = (f"{url}/admin/", f"{url}/api/docs")
            left += [link.partition("#")[0] for link in links if link.startswith(ours)]
        return kinds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    """A server with a model and an update."""
    with FmaInstall(tmp_path_factory.mktemp("browser") / "fma-data") as install:
        install.migrate()
        started = install.start_web()
        root = install.add_user("root", staff=True, password=PASSWORD)
        models = f"{started.base_url}/api/v1/models/"
        said = {"name": "m", "aggregator": "mean", "initial_model": {"w": [1.0]}, "allow_aggregation": True}
        made = httpx.post(models, json=said, headers=root.headers).raise_for_status().json()
        client = httpx.post(f"{models}{made['id']}/register_client/").raise_for_status().json()
        update = {"federated_model": made["id"], "data": {"w": [2.0]}, "num_examples": 1, "base_aggregate": 0}
        sender = {"CLIENT-UUID": client["uuid"]}
        updates = f"{started.base_url}/api/v1/model_updates/"
        httpx.post(updates, json=update, headers=sender).raise_for_status()
        yield started


@pytest.fixture(scope="module")
def browser(server: FmaServer) -> Iterator["Browser"]:
    """One browser for all tests; after the server, because Django refuses its database where Playwright runs."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def visitor(browser: "Browser") -> Iterator[Visitor]:
    """A visitor without cookies."""
    page = browser.new_page()
    yield Visitor(page)
    page.close()


def test_no_page_breaks_its_policy(server: FmaServer, visitor: Visitor) -> None:
    visitor.log_in(server.base_url)

    kinds = visitor.visit_all(server.base_url, ["/admin/", "/api/docs/", "/admin/nothing/", "/nothing"])

    assert len(kinds) > 50, kinds
    assert visitor.violations == []


def test_documentation_is_shown(server: FmaServer, visitor: Visitor) -> None:
    visitor.page.goto(f"{server.base_url}/api/docs/")

    visitor.page.wait_for_selector("text=register_client", timeout=20_000)

    assert visitor.violations == []


def test_the_menu_of_the_user_works_by_keyboard(server: FmaServer, visitor: Visitor) -> None:
    visitor.log_in(server.base_url)
    page, opener = visitor.page, visitor.page.get_by_role("button", name="root")
    link = page.get_by_role("link", name="Second factor", exact=True)

    for _ in range(60):
        page.keyboard.press("Tab")
        if opener.evaluate("button => button === document.activeElement"):
            break
    assert opener.get_attribute("aria-expanded") == "false"
    assert not link.is_visible()
    page.keyboard.press("Enter")
    link.wait_for()
    assert opener.get_attribute("aria-expanded") == "true"

    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached[:4] == ["Light", "Dark", "System", "View site"]
    assert reached[4:] == ["Second factor", "Change password"]

    page.keyboard.press("Escape")
    link.wait_for(state="hidden")
    assert opener.evaluate("button => button === document.activeElement")
    page.keyboard.press("Space")
    link.wait_for()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.documentElement.classList.contains('dark')")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/second-factor/")
    assert visitor.violations == []


@pytest.mark.parametrize("path", ["/admin/login/", "/api/docs/", "/nothing"])
def test_inline_scripts_do_not_run(server: FmaServer, visitor: Visitor, path: str) -> None:
    visitor.page.goto(f"{server.base_url}{path}")

    ran = visitor.page.evaluate(INLINE)

    assert ran is False
    assert any("Content Security Policy" in violation for violation in visitor.violations)
