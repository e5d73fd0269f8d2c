"""A second factor: turned on and off by its user, asked for at each login, and not gone round by any other way."""

import re
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.serializers import serialize
from django.test import Client as Browser
from django.test import RequestFactory
from django.test.utils import override_script_prefix
from pytest_django import Settings

from fma_api.cli.problem import Problem
from fma_api.cli.user import take_off_second_factor
from fma_api.second_factor.urls import urlpatterns
from fma_api.v1.accounts.codes import OF_AN_ACCOUNT
from fma_api.v1.limits import Guesses, TooManyGuesses
from fma_django.accounts import second_factor
from fma_django.accounts.roles import RUN_EXPERIMENTS, USE_ADMIN_SITE
from fma_django.accounts.seal import unseal
from fma_django.rates import of_this_process
from tests.records import PASSWORD, make_user, make_user_with

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"
CODE = "/admin/login/code/"
OVERVIEW = "/admin/second-factor/"
ON, OFF = "/admin/second-factor/on/", "/admin/second-factor/off/"
CODES, NEW_CODES = "/admin/second-factor/codes/", "/admin/second-factor/codes/new/"
NOW_S = 1_800_000_000


class Clock:
    """The time by which codes are made and looked at."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def code(self, seed: str) -> str:
        """The present code; each call is half a minute later than the one before."""
        self.now_s += 30
        return format_hotp_value(hotp_value(seed, self.now_s // 30))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("allauth.mfa.totp.internal.auth.time.time", lambda: made.now_s)
    return made


def logged_in(user: User) -> Browser:
    browser = Browser()
    browser.post(LOGIN, {"username": user.username, "password": PASSWORD})
    return browser


def turn_on(user: User, clock: Clock, browser: Browser | None = None) -> tuple[str, list[str]]:
    """The seed and the recovery codes, by the pages."""
    browser = browser or logged_in(user)
    seed = shown_seed(browser)
    answer = browser.post(ON, {"password": PASSWORD, "code": clock.code(seed)})
    assert answer.headers["Location"] == CODES
    return seed, shown_codes(browser)


def shown_seed(browser: Browser) -> str:
    return str(re.findall(r'id="key"[^>]*value="(\w+)"', browser.get(ON).content.decode())[0])


def shown_codes(browser: Browser) -> list[str]:
    return re.findall(r"^(?:<pre[^>]*>)?(?:.*>)?(\d{8})$", browser.get(CODES).content.decode(), re.M)


def is_in(browser: Browser) -> bool:
    return browser.get("/admin/").status_code == 200


def test_a_login_asks_for_a_code(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    browser = Browser()

    answer = browser.post(f"{LOGIN}?next=/admin/auth/user/", {"username": "root", "password": PASSWORD})

    assert (answer.status_code, answer.headers["Location"]) == (302, CODE)
    assert not is_in(browser)
    answer = browser.post(CODE, {"code": clock.code(seed)})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/auth/user/")
    assert is_in(browser)
    assert browser.get(CODE).status_code == 302


def test_a_code_is_used_once(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    code = clock.code(seed)
    browsers = [logged_in(user), logged_in(user)]

    statuses = [browser.post(CODE, {"code": code}).status_code for browser in browsers]

    assert statuses == [302, 403]
    assert [is_in(browser) for browser in browsers] == [True, False]


def test_the_code_that_turned_it_on_and_earlier_ones_are_used(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    first = format_hotp_value(hotp_value(seed, clock.now_s // 30))
    earlier = format_hotp_value(hotp_value(seed, clock.now_s // 30 - 1))
    browser = logged_in(user)

    assert [browser.post(CODE, {"code": code}).status_code for code in (first, earlier)] == [403, 403]


def test_a_recovery_code_logs_in_once(clock: Clock) -> None:
    user = make_user("root", staff=True)
    _, recovery_codes = turn_on(user, clock)
    assert len(set(recovery_codes)) == 10
    browsers = [logged_in(user), logged_in(user), logged_in(user)]

    statuses = [
        browser.post(CODE, {"code": code}).status_code
        for browser, code in zip(
            browsers, [recovery_codes[3], recovery_codes[3], recovery_codes[4]], strict=True
        )
    ]

    assert statuses == [302, 403, 302]
    assert "You have 8 recovery codes left" in browsers[0].get(OVERVIEW).content.decode()
    assert recovery_codes[5] not in browsers[0].get(CODES).content.decode()  # shown once


def test_codes_are_limited_for_an_account_from_all_addresses(clock: Clock, settings: Settings) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    said = {"username": "root", "password": PASSWORD}
    statuses = []
    for number in range(12):
        browser = Browser(headers={"x-forwarded-for": f"10.0.0.{number}"})
        browser.post(LOGIN, said)
        if number % 2:
            answer = browser.post(CODE, {"code": "000000"})
        else:
            answer = browser.post("/api-token-auth/", {**said, "code": "0"}, content_type="application/json")
        statuses.append(answer.status_code)

    assert statuses == [403] * 10 + [429] * 2
    late = Browser(headers={"x-forwarded-for": "10.0.1.1"})
    late.post(LOGIN, said)
    answer = late.post(CODE, {"code": clock.code(seed)})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 361
    assert "Too many wrong codes for this account; try again in " in answer.content.decode()
    asked = late.post("/api-token-auth/", {**said, "code": "0"}, content_type="application/json")
    assert "Too many wrong codes for this account" in asked.json()["detail"]


class Hours:
    """The time by which limits are counted, in seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    made = Hours()
    monkeypatch.setattr(of_this_process, "_clock", lambda: made.now_s)
    of_this_process.forget()
    return made


def test_codes_are_limited_over_days(clock: Clock, hours: Hours, settings: Settings) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    user = make_user("root", staff=True)
    turn_on(user, clock)
    answers = []
    for number in range(30):
        hours.now_s += 600
        browser = Browser(headers={"x-forwarded-for": f"10.0.0.{number}"})
        browser.post(LOGIN, {"username": "root", "password": PASSWORD})
        answers.append(browser.post(CODE, {"code": "000000"}))

    # Twenty, and one for each 72 minutes that have gone by since.
    assert 20 <= sum(answer.status_code == 403 for answer in answers) <= 24
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 600 < int(refused[0].headers["Retry-After"]) <= 4320
    told = r"try again in \d+ seconds, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.search(told, refused[0].content.decode())


def test_a_year_of_guesses_finds_no_code(hours: Hours) -> None:
    """Three of a million codes are right at a time."""
    request, guesses, year_s = RequestFactory().post(CODE), 0, 365 * 86_400
    while hours.now_s < year_s:
        try:
            Guesses(request, of="codes", account="root", account_rates=OF_AN_ACCOUNT).count()
            guesses += 1
        except TooManyGuesses as refused:
            hours.now_s += refused.wait

    assert 500 < guesses < 1000
    assert 1 - (1 - 3e-6) ** guesses < 0.003


def test_an_operator_lifts_the_limit_of_codes(clock: Clock, hours: Hours) -> None:
    owner, anna = make_user("owner", staff=True), make_user_with(USE_ADMIN_SITE, username="anna")
    operator = make_user_with(USE_ADMIN_SITE, "auth.view_user", "auth.change_user", username="operator")
    of_operator, browser = Browser(), Browser()
    of_operator.force_login(operator)
    seed, _ = turn_on(anna, clock)
    turn_on(owner, clock)

    def guess_on(user: User) -> int:
        browser.post(LOGIN, {"username": user.username, "password": PASSWORD})
        while (answer := browser.post(CODE, {"code": "000000"})).status_code == 403:
            hours.now_s += 60
        return answer.status_code

    assert [guess_on(user) for user in (owner, anna)] == [429, 429]
    chosen = {"action": "lift_code_limit", "_selected_action": [owner.pk, operator.pk, anna.pk]}
    assert of_operator.post("/admin/auth/user/", chosen).status_code == 302

    assert guess_on(owner) == 429, "who holds more"
    browser.post(LOGIN, {"username": "anna", "password": PASSWORD})
    assert browser.post(CODE, {"code": clock.code(seed)}).status_code == 302
    assert is_in(browser)


def test_the_limit_of_codes_is_lifted_at_the_command_line(clock: Clock, hours: Hours) -> None:
    user = make_user("root", staff=True)
    before = second_factor.name_of_limit(user)
    assert not second_factor.lift_limit(user, by=None)
    seed, _ = turn_on(user, clock)

    assert second_factor.lift_limit(user, by=None)
    lifted = second_factor.name_of_limit(user)
    second_factor.use_code(user, clock.code(seed))

    assert second_factor.name_of_limit(user) == lifted != before


@pytest.mark.parametrize("path", [LOGIN, ON])
def test_too_many_passwords_are_told_as_such(clock: Clock, settings: Settings, path: str) -> None:
    settings.FMA_LOGIN_RATE = (2, 60)
    browser = logged_in(make_user("root", staff=True))
    for _ in range(3):
        answer = browser.post(path, {"username": "root", "password": "guess", "code": "0"})

    assert answer.status_code == 429
    assert "Too many wrong passwords" in answer.content.decode()


def test_right_codes_cost_nothing(clock: Clock, settings: Settings) -> None:
    settings.FMA_LOGIN_RATE = (5, 60)
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    for _ in range(12):
        assert logged_in(user).post(CODE, {"code": clock.code(seed)}).status_code == 302


def test_a_code_without_a_password_leads_to_the_login(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)

    answer = Browser().post(CODE, {"code": clock.code(seed)})

    assert (answer.status_code, answer.headers["Location"]) == (302, LOGIN)


@pytest.mark.parametrize(
    "said", [{}, {"code": ""}, {"code": "x" * 40}, {"code": "\x00"}, {"credential": "{}"}]
)
def test_odd_codes_are_wrong(clock: Clock, said: dict[str, str]) -> None:
    user = make_user("root", staff=True)
    turn_on(user, clock)
    browser = logged_in(user)

    assert browser.post(CODE, said).status_code == 403
    assert not is_in(browser)


def test_a_user_who_is_deactivated_between_password_and_code_is_not_let_in(clock: Clock) -> None:
    user = make_user("root", staff=True)
    make_user("second", staff=True)
    seed, _ = turn_on(user, clock)
    browser = logged_in(user)
    user.is_active = False
    user.save()

    browser.post(CODE, {"code": clock.code(seed)})

    assert not is_in(browser)


def test_a_user_who_is_deleted_between_password_and_code_is_not_let_in(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    browsers = [logged_in(user), logged_in(user)]
    user.delete()

    answers = [browsers[0].get(CODE), browsers[1].post(CODE, {"code": clock.code(seed)})]

    assert [answer.headers["Location"] for answer in answers] == [LOGIN] * 2


def test_a_new_password_between_password_and_code_ends_the_login(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    browser = logged_in(user)
    user.set_password("another-long-password")
    user.save()

    browser.post(CODE, {"code": clock.code(seed)})

    assert not is_in(browser)


def test_turning_it_on_needs_the_password_and_a_code(clock: Clock) -> None:
    user = make_user("root", staff=True)
    browser = logged_in(user)
    seed = shown_seed(browser)

    wrong = [{"password": "guess", "code": clock.code(seed)}, {"password": PASSWORD, "code": "000000"}, {}]

    assert [browser.post(ON, said).status_code for said in wrong] == [403] * 3
    assert not second_factor.is_on(user)


def test_a_code_that_grows_old_while_it_is_looked_at_turns_it_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_user("root", staff=True)
    browser = logged_in(user)
    seed = shown_seed(browser)
    code = clock.code(seed)
    step_of = second_factor.step_of

    def slow_step_of(seed: str, code: str) -> int | None:
        step = step_of(seed, code)
        clock.now_s += 60
        return step

    with monkeypatch.context() as patch:
        patch.setattr(second_factor, "step_of", slow_step_of)
        assert browser.post(ON, {"password": PASSWORD, "code": code}).status_code == 302

    assert logged_in(user).post(CODE, {"code": clock.code(seed)}).status_code == 302


def test_of_two_seeds_at_one_time_one_is_turned_on(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user("root", staff=True)
    browser, other = logged_in(user), logged_in(user)
    said, of_other = (
        {"password": PASSWORD, "code": clock.code(shown_seed(each))} for each in (browser, other)
    )
    step_of = second_factor.step_of

    def meanwhile(seed: str, code: str) -> int | None:
        monkeypatch.setattr(second_factor, "step_of", step_of)
        assert other.post(ON, of_other).status_code == 302
        return step_of(seed, code)

    monkeypatch.setattr(second_factor, "step_of", meanwhile)

    assert browser.post(ON, said).headers["Location"] == OVERVIEW
    assert [is_in(browser), is_in(other)] == [False, True]
    assert Authenticator.objects.filter(user=user, type="totp").count() == 1


def test_passwords_at_the_form_count_as_guesses(clock: Clock, settings: Settings) -> None:
    settings.FMA_LOGIN_RATE = (3, 60)
    browser = logged_in(make_user("root", staff=True))
    said = {"password": "guess", "code": "000000"}

    assert [browser.post(ON, said).status_code for _ in range(4)] == [403] * 3 + [429]


def test_turning_it_off_and_new_codes_need_a_code(clock: Clock) -> None:
    user = make_user("root", staff=True)
    seed, recovery_codes = turn_on(user, clock)
    browser = logged_in(user)
    browser.post(CODE, {"code": clock.code(seed)})
    assert [browser.get(path).status_code for path in (OFF, NEW_CODES)] == [200, 200]

    assert [browser.post(path, {"code": "1"}).status_code for path in (OFF, NEW_CODES)] == [403, 403]
    assert browser.post(NEW_CODES, {"code": recovery_codes[0]}).status_code == 302
    assert logged_in(user).post(CODE, {"code": recovery_codes[1]}).status_code == 403
    assert browser.post(OFF, {"code": clock.code(seed)}).status_code == 302
    assert not Authenticator.objects.filter(user=user).exists()
    assert is_in(logged_in(user))


def test_a_dump_of_the_database_has_no_seed_and_no_code(clock: Clock) -> None:
    user = make_user("root", staff=True)
    browser = logged_in(user)
    pending = shown_seed(browser)
    seen = [str(session.get_decoded()) for session in Session.objects.all()]
    seed, recovery_codes = turn_on(make_user("other", staff=True), clock)
    dump = serialize("json", Authenticator.objects.all())
    dump += str([session.get_decoded() for session in Session.objects.all()])

    assert len(pending) == len(seed) == 32
    assert not any(secret in text for secret in (pending, seed, *recovery_codes) for text in (*seen, dump))


def test_another_secret_key_reads_no_seed(
    clock: Clock, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    settings.SECRET_KEY = "another-" + "0123456789" * 5

    assert logged_in(user).post(CODE, {"code": clock.code(seed)}).status_code == 403
    assert "second_factor_unreadable" in caplog.text
    assert second_factor.take_off(user, by=None)
    assert is_in(logged_in(user))


def token(**said: str) -> Any:
    answer = Browser().post("/api-token-auth/", said, content_type="application/json")
    return answer.status_code, answer.json().get("code", "token" in answer.json())


def test_the_password_alone_gives_no_token(clock: Clock) -> None:
    user = make_user("anna", staff=True)
    seed, recovery_codes = turn_on(user, clock)
    login = {"username": "anna", "password": PASSWORD}
    code = clock.code(seed)

    assert token(**login) == (403, "second_factor_required")
    assert token(**login, code="") == (400, "invalid")
    assert token(**login, code="000000") == (403, "wrong_second_factor")
    assert token(username="anna", password="guess", code=code) == (400, "invalid")
    assert token(**login, code=code) == (200, True)
    assert token(**login, code=code) == (403, "wrong_second_factor")
    assert token(**login, code=recovery_codes[0]) == (200, True)


def basic(user: User) -> Any:
    said = b64encode(f"{user.username}:{PASSWORD}".encode()).decode()
    answer = Browser().get("/api/v1/me/", headers={"authorization": f"Basic {said}"})
    return answer.status_code, answer.json().get("code")


def test_the_password_alone_is_no_basic_authentication(clock: Clock) -> None:
    user = make_user("anna", staff=True)
    assert basic(user) == (200, None)
    turn_on(user, clock)

    assert basic(user) == (401, "second_factor_required")


def test_where_it_is_required_a_password_leads_to_its_pages_alone(clock: Clock, settings: Settings) -> None:
    settings.FMA_SECOND_FACTOR = "required"
    user = make_user_with(USE_ADMIN_SITE, "auth.view_user")
    browser = logged_in(user)

    for path in ("/admin/", "/admin/auth/user/", "/admin/password_change/"):
        answer = browser.get(path, follow=True)
        assert answer.redirect_chain[-1][0] == OVERVIEW, path
    assert browser.get("/api/v1/me/").status_code == 401
    assert browser.get("/api/v1/me/").json()["code"] == "second_factor_required"
    assert token(username=user.username, password=PASSWORD) == (403, "second_factor_required")
    assert basic(user) == (401, "second_factor_required")
    turn_on(user, clock, browser)
    assert is_in(browser)
    assert browser.get("/api/v1/me/").status_code == 200


@pytest.mark.parametrize("rule", ["optional", "required"])
def test_turning_it_on_ends_sessions_that_have_not_shown_it(
    clock: Clock, settings: Settings, rule: str
) -> None:
    """Whoever has the password alone waits in one, for the recovery codes or for the second factor to be there."""
    settings.FMA_SECOND_FACTOR = rule
    user = make_user("root", staff=True)
    older, browser = logged_in(user), logged_in(user)
    seed = shown_seed(browser)
    assert older.get(OVERVIEW).status_code == 200
    browser.post(ON, {"password": PASSWORD, "code": clock.code(seed)})

    assert shown_codes(older) == []
    assert not is_in(older)
    assert older.get("/api/v1/me/").status_code == 401
    assert older.post(OFF, {"code": clock.code(seed)}).headers["Location"].startswith(LOGIN)
    assert len(shown_codes(browser)) == 10
    assert is_in(browser)
    older.post(LOGIN, {"username": "root", "password": PASSWORD})
    assert older.post(CODE, {"code": clock.code(seed)}).status_code == 302
    assert is_in(older)


def test_a_session_that_showed_another_second_factor_has_not_shown_the_new_one(clock: Clock) -> None:
    user = make_user("root", staff=True)
    older = logged_in(user)
    turn_on(user, clock, older)
    assert second_factor.take_off(user, by=None)
    assert is_in(older)

    turn_on(user, clock)

    assert not is_in(older)


def test_another_user_logs_in_in_the_same_browser(clock: Clock) -> None:
    anna, bob = make_user("anna", staff=True), make_user("bob", staff=True)
    (first, _), (second, _) = turn_on(anna, clock), turn_on(bob, clock)
    browser = logged_in(anna)
    browser.post(CODE, {"code": clock.code(first)})
    browser.post(LOGIN, {"username": "bob", "password": PASSWORD})

    assert not is_in(browser)
    assert browser.post(CODE, {"code": clock.code(second)}).status_code == 302
    assert browser.get("/api/v1/me/").json()["username"] == "bob"


def test_whoever_lacks_it_can_log_out(settings: Settings) -> None:
    settings.FMA_SECOND_FACTOR = "required"
    browser = logged_in(make_user("root", staff=True))

    assert browser.post("/admin/logout/").status_code == 200
    assert browser.get(OVERVIEW).status_code == 302


def test_it_is_not_required_of_whoever_may_not_enter_the_admin(settings: Settings) -> None:
    settings.FMA_SECOND_FACTOR = "required"
    user = make_user_with(RUN_EXPERIMENTS)

    assert token(username=user.username, password=PASSWORD) == (200, True)
    assert basic(user) == (200, None)


def test_an_operator_takes_it_off_but_not_for_whoever_holds_more(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    operator = make_user_with(USE_ADMIN_SITE, "auth.view_user", "auth.change_user", username="operator")
    owner, nobody = make_user("owner", staff=True), make_user_with(USE_ADMIN_SITE, username="nobody")
    for user in (owner, nobody, operator):
        turn_on(user, clock)
    seed = unseal(Authenticator.objects.get(user=operator, type="totp").data["secret"])
    browser = logged_in(operator)
    browser.post(CODE, {"code": clock.code(seed)})
    users = [owner.pk, nobody.pk, operator.pk]

    said = {"action": "take_off_second_factor", "_selected_action": users}
    assert browser.post("/admin/auth/user/", said).status_code == 302

    assert [second_factor.is_on(user) for user in (owner, nobody, operator)] == [True, False, True]
    assert "second_factor_taken_off" in caplog.text
    assert is_in(logged_in(nobody))


def test_the_operator_of_the_machine_takes_it_off(clock: Clock) -> None:
    user = make_user("root", staff=True)
    turn_on(user, clock)

    assert take_off_second_factor("root")
    assert not take_off_second_factor("root")
    assert is_in(logged_in(user))
    with pytest.raises(Problem, match="there is no user 'nobody'"):
        take_off_second_factor("nobody")


def test_links_of_other_servers_are_not_followed_after_the_code(clock: Clock, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*", "other.example"]
    user = make_user("root", staff=True)
    seed, _ = turn_on(user, clock)
    for following in ("https://evil.example/", "//evil.example", "https://other.example/", "/\\evil.example"):
        browser = Browser()
        browser.post(f"{LOGIN}?next={following}", {"username": "root", "password": PASSWORD})
        answer = browser.post(f"{CODE}?next={following}", {"code": clock.code(seed)})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/"), following


def test_the_qr_code_says_the_seed_the_user_and_the_server(clock: Clock) -> None:
    browser = logged_in(make_user("anna", staff=True))
    page = browser.get(ON)

    address = urlsplit(page.context["totp_url"])

    assert (address.scheme, address.netloc, address.path) == ("otpauth", "totp", "/anna")
    said = parse_qs(address.query)
    assert said == {"secret": [page.context["form"].secret], "issuer": ["testserver"]}
    assert b"data:image/svg+xml;base64," in page.content


def test_no_other_page_of_allauth_is_there() -> None:
    browser = logged_in(make_user("root", staff=True))
    for path in ("accounts/signup/", "admin/signup/", "admin/2fa/", "admin/mfa/authenticator/"):
        assert browser.get(f"/{path}").status_code == 404, path
    for path in ("account/emailaddress/", "mfa/authenticator/"):
        assert browser.get(f"/admin/{path}").status_code == 404, path


def test_below_a_prefix_every_step_leads_to_the_next(clock: Clock) -> None:
    user = make_user("root", staff=True)
    turn_on(user, clock)
    browser = Browser(SCRIPT_NAME="/fl")
    with override_script_prefix("/fl/"):
        answer = browser.post(LOGIN, {"username": "root", "password": PASSWORD})
        page = browser.get(CODE).content.decode()

    assert answer.headers["Location"] == f"/fl{CODE}"
    assert f'href="/fl{LOGIN}"' in page


ROUTES = {
    # anonymous, who may not enter the admin, an auditor without and with a second factor
    CODE: (302, 302, 302, 302),
    OVERVIEW: (302, 200, 200, 200),
    ON: (302, 200, 200, 302),
    OFF: (302, 404, 404, 200),
    CODES: (302, 404, 404, 200),
    NEW_CODES: (302, 200, 200, 200),
    "/admin/logout/": (405, 405, 405, 405),
}


def test_every_route_is_for_users_with_a_session(clock: Clock) -> None:
    nobody, auditor, careful = (
        make_user_with(),
        make_user_with(role="auditor"),
        make_user_with(role="auditor"),
    )
    browsers = [Browser() for _ in range(4)]
    for browser, user in zip(browsers[1:], (nobody, auditor, careful), strict=True):
        browser.force_login(user)
    turn_on(careful, clock, browsers[3])

    found = {path: tuple(browser.get(path).status_code for browser in browsers) for path in ROUTES}

    assert found == ROUTES
    assert {f"/admin/{pattern.pattern}" for pattern in urlpatterns} == ROUTES.keys() - {"/admin/logout/"}
    assert not second_factor.is_on(auditor)
    anonymous = [browsers[0].post(path, {"code": "000000"}) for path in ROUTES if path != "/admin/logout/"]
    assert {urlsplit(answer.headers["Location"]).path for answer in anonymous} == {LOGIN}
