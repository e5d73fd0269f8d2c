"""People log in with a real browser, by the keyboard alone: at a real identity provider, and with a second factor."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.certificates import Authority
from tests.servers.chromium import chromium
from tests.servers.fma import FmaInstall, FmaServer
from tests.servers.free_port import free_port
from tests.servers.oidc import CLIENT_ID, SECRET, OidcProvider, Person

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.processes, pytest.mark.slow]

PASSWORD = "a-long-password-1"
ANNA = Person("anna", "at-the-provider-1", "anna@example.org", groups=("ops",))
STRANGER = Person("eve", "at-the-provider-2", "anna@example.com")
UNVERIFIED = Person("ann", "at-the-provider-3", "root@example.org", is_verified=False)


@dataclass(frozen=True)
class Place:
    server: FmaServer
    provider: OidcProvider

    @property
    def url(self) -> str:
        return self.server.base_url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server and the provider where its users log in."""
    folder = tmp_path_factory.mktemp("login")
    authority = Authority(folder / "authority", "our own")
    port = free_port()
    redirect_uri = f"http://localhost:{port}/admin/login/oidc/callback/"
    people = [ANNA, STRANGER, UNVERIFIED]
    with OidcProvider(folder / "provider", authority, redirect_uri=redirect_uri, people=people) as provider:
        env = {
            "FMA_OIDC_ISSUER": provider.issuer,
            "FMA_OIDC_CLIENT_ID": CLIENT_ID,
            "FMA_OIDC_CLIENT_SECRET": SECRET,
            "FMA_OIDC_NAME": "the provider",
            "FMA_OIDC_MATCH_EMAIL": "true",
            "FMA_OIDC_ROLES": "ops=operator,audit=auditor",
            "FMA_OUTGOING_NETWORKS": "127.0.0.0/8,::1/128",
            "SSL_CERT_FILE": str(authority.certificate),
        }
        with FmaInstall(folder / "fma-data", env) as install:
            install.migrate()
            install.add_user("root", staff=True, password=PASSWORD)
            install.add_user("anna")
            with install.database():
                from django.contrib.auth.models import User

                User.objects.filter(username="anna").update(email=ANNA.email)
                User.objects.filter(username="root").update(email=UNVERIFIED.email)
            yield Place(install.start_web(port=port), provider)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as launched:
        yield launched


class Visitor:
    """A person with a keyboard, and each word of the console of their browser."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.violations: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.violations.append(f"{page.url}: {error}"))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.violations.append(f"{self.page.url}: {message.text}")

    def press_until(self, says: str) -> None:
        """Tab to the link or button that says this, and press Enter."""
        for _ in range(200):
            self.page.keyboard.press("Tab")
            if says in self.page.evaluate(
                "document.activeElement.innerText || document.activeElement.value || ''"
            ):
                self.page.keyboard.press("Enter")
                return
        raise AssertionError(f"no key leads to {says!r} on {self.page.url}")

    def type_into(self, name: str, text: str) -> None:
        """Tab to the field, unless it has the focus, and type."""
        for _ in range(200):
            if self.page.evaluate("document.activeElement.name || ''") == name:
                self.page.keyboard.type(text)
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"no key leads to the field {name} on {self.page.url}")

    def at_provider(self, place: Place, person: Person) -> None:
        self.page.goto(f"{place.url}/admin/login/")
        self.press_until("Log in with the provider")
        self.page.wait_for_url(f"{place.provider.issuer}/**")
        self.page.wait_for_load_state()
        self.page.locator("[name=login]").focus()
        self.type_into("login", person.username)
        self.type_into("password", person.password)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{place.url}/**")

    def with_password(self, place: Place) -> None:
        self.page.goto(f"{place.url}/admin/login/")
        self.type_into("username", "root")
        self.type_into("password", PASSWORD)
        self.page.keyboard.press("Enter")


@pytest.fixture(params=["light", "dark"])
def visitor(request: pytest.FixtureRequest, browser: "Browser") -> Iterator[Visitor]:
    context = browser.new_context(ignore_https_errors=True, color_scheme=request.param)
    yield Visitor(context.new_page())
    context.close()


@pytest.mark.parametrize("visitor", ["light"], indirect=True)
def test_a_user_logs_in_at_the_provider_and_gets_its_roles(place: Place, visitor: Visitor) -> None:
    visitor.at_provider(place, ANNA)

    visitor.page.wait_for_url("**/admin/")
    me = visitor.page.goto(f"{place.url}/api/v1/me/").json()
    assert (me["username"], me["roles"]) == ("anna", ["data scientist", "operator"])
    assert visitor.violations == []


@pytest.mark.parametrize("visitor", ["light"], indirect=True)
@pytest.mark.parametrize("person", [STRANGER, UNVERIFIED], ids=["unknown", "unverified"])
def test_nobody_else_gets_in(place: Place, visitor: Visitor, person: Person) -> None:
    visitor.at_provider(place, person)

    assert "ask an operator" in visitor.page.inner_text("body")
    visitor.press_until("Back to the login page")
    visitor.page.wait_for_url("**/admin/login/")
    assert visitor.page.goto(f"{place.url}/api/v1/me/").status == 401
    assert visitor.violations == []


def code_now(seed: str) -> str:
    from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value

    return format_hotp_value(hotp_value(seed, int(time.time()) // 30))


def test_a_user_sets_up_a_second_factor_uses_it_and_turns_it_off(place: Place, visitor: Visitor) -> None:
    visitor.with_password(place)
    visitor.page.wait_for_url("**/admin/")
    visitor.press_until("Your second factor")
    visitor.page.wait_for_url("**/admin/second-factor/")
    visitor.press_until("Turn on")
    visitor.page.wait_for_url("**/on/")
    seed = visitor.page.input_value("#key")
    assert visitor.page.locator("img[alt*=QR]").evaluate("image => image.complete && image.naturalWidth > 0")
    visitor.type_into("password", PASSWORD)
    visitor.type_into("code", code_now(seed))
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_url("**/codes/")
    recovery_codes = visitor.page.inner_text("#recovery-codes").split()
    assert len(recovery_codes) == 10

    visitor.page.context.clear_cookies()
    visitor.with_password(place)
    visitor.page.wait_for_url("**/admin/login/code/")
    visitor.type_into("code", "12345678")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("text=This code is wrong")
    visitor.type_into("code", recovery_codes[0])
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_url("**/admin/")

    visitor.page.goto(f"{place.url}/admin/second-factor/")
    visitor.press_until("Turn off")
    visitor.page.wait_for_url("**/off/")
    visitor.type_into("code", recovery_codes[1])
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_url("**/admin/second-factor/")
    assert "is off" in visitor.page.inner_text("body")
    assert visitor.violations == []
