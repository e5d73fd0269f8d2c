"""Keys of clients, issuers of organisations and signed updates in the admin."""

from typing import Any

import pytest
from django.test import Client as Browser

from fma_core.identity.keys import fingerprint
from fma_django.clients.issuers import add_issuer, revoke_issuer
from fma_django.clients.keys import add_key, sent_key
from fma_django.models import Client, Issuer, ModelUpdate, Organisation, UpdateSignature
from tests.django.admin.test_pages import queries_of, url_of
from tests.keys import SERVER, Key
from tests.records import PASSWORD, make_client, make_model, make_user_with, send_update

pytestmark = pytest.mark.django_db


def keyed_client(issuer: Key | None = None) -> tuple[Client, Key]:
    key, client = Key(), make_client(make_model()).client
    certificate = None if issuer is None else issuer.certify(key).to_json()
    sent = sent_key(key.of_client(client, certificate=certificate), servers=(SERVER,))
    assert sent is not None
    add_key(client, sent)
    return client, key


def form_of(organisation: Organisation, *rows: dict[str, Any], present: int = 0) -> dict[str, Any]:
    said: dict[str, Any] = {"name": organisation.name}
    for prefix, total, initial in (("memberships", 0, 0), ("issuers", len(rows), present)):
        said |= {f"{prefix}-TOTAL_FORMS": total, f"{prefix}-INITIAL_FORMS": initial}
    for number, row in enumerate(rows):
        said |= {f"issuers-{number}-{name}": value for name, value in row.items()}
        said[f"issuers-{number}-organisation"] = organisation.pk
    return said


def test_the_page_of_a_client_shows_its_key_and_certificate(browser: Browser) -> None:
    issuer, hospital = Key(), Organisation.objects.create(name="hospital")
    entered = add_issuer(hospital, issuer.public.hex(), by=None)
    client, key = keyed_client(issuer)
    url, listed = url_of(Client, "change", client.pk), url_of(Client, "changelist")

    page = browser.get(url).content.decode()
    assert fingerprint(key.public) in page
    assert entered.fingerprint in page
    assert "hospital: scanner" in page
    assert "certificate valid" in browser.get(listed).content.decode()
    revoke_issuer(entered, by=None)
    assert "certificate issuer revoked" in browser.get(listed).content.decode()
    assert "issuer revoked; " in browser.get(url).content.decode()


def test_lists_take_as_many_queries_with_keys_and_signatures(browser: Browser) -> None:
    issuer, hospital = Key(), Organisation.objects.create(name="hospital")
    add_issuer(hospital, issuer.public.hex(), by=None)
    counts = []
    for _ in range(2):
        for _ in range(3):
            client, key = keyed_client(issuer)
            update = send_update(client.federated_models.get(), client)
            UpdateSignature.objects.create(
                update=update,
                public_key=key.public.hex(),
                sha256="0" * 64,
                nonce="0" * 32,
                signature=key.public.hex(),
            )
        counts.append([queries_of(browser, url_of(model, "changelist")) for model in (Client, ModelUpdate)])

    assert counts[0] == counts[1]


def test_the_page_of_an_update_shows_who_signed_it(browser: Browser) -> None:
    client, key = keyed_client()
    signed = send_update(client.federated_models.get(), client)
    UpdateSignature.objects.create(
        update=signed, public_key=key.public.hex(), sha256="0" * 64, nonce="0" * 32, signature="0" * 128
    )

    assert fingerprint(key.public) in browser.get(url_of(ModelUpdate, "change", signed.pk)).content.decode()


def test_an_operator_enters_and_revokes_issuers(browser: Browser) -> None:
    hospital, key, other = Organisation.objects.create(name="hospital"), Key(), Key()
    url = url_of(Organisation, "change", hospital.pk)

    added = browser.post(url, form_of(hospital, {"public_key": key.public.hex()}))
    assert added.status_code == 302, added.content
    [issuer] = Issuer.objects.all()
    kept = {"id": issuer.pk, "public_key": other.public.hex(), "revoke": ""}
    browser.post(url, form_of(hospital, kept, {"public_key": other.public.hex()}, present=1))
    assert set(Issuer.objects.values_list("public_key", flat=True)) == {key.public.hex(), other.public.hex()}
    assert not Issuer.objects.exclude(revoked_on=None).exists()
    rows = [{"id": row.pk, "revoke": "on" if row.pk == issuer.pk else ""} for row in Issuer.objects.all()]
    browser.post(url, form_of(hospital, *rows, present=2))
    [revoked] = Issuer.objects.exclude(revoked_on=None)
    assert revoked.pk == issuer.pk
    # For good.
    browser.post(url, form_of(hospital, *({**row, "revoke": ""} for row in rows), present=2))
    assert Issuer.objects.exclude(revoked_on=None).get() == issuer


@pytest.mark.parametrize(
    ("public_key", "reason"),
    [("00" * 32, "small order"), ("x", "64 lower-case"), ("taken", "an issuer already")],
)
def test_a_wrong_issuer_is_told_on_the_page(browser: Browser, public_key: str, reason: str) -> None:
    hospital, other = (Organisation.objects.create(name=name) for name in ("hospital", "other"))
    key = Key()
    if public_key == "taken":
        add_issuer(other, key.public.hex(), by=None)
        public_key = key.public.hex()

    answer = browser.post(
        url_of(Organisation, "change", hospital.pk), form_of(hospital, {"public_key": public_key})
    )

    assert answer.status_code == 200
    assert reason in answer.content.decode() or "already exists" in answer.content.decode()
    assert not Issuer.objects.filter(organisation=hospital).exists()


@pytest.mark.parametrize("role", ["auditor", "compliance officer"])
def test_who_may_only_look_enters_no_issuer(role: str) -> None:
    hospital, browser = Organisation.objects.create(name="hospital"), Browser()
    add_issuer(hospital, Key().public.hex(), by=None)
    user = make_user_with(role=role)
    browser.login(username=user.username, password=PASSWORD)
    url = url_of(Organisation, "change", hospital.pk)

    assert Issuer.objects.get().fingerprint in browser.get(url).content.decode()
    browser.post(url, form_of(hospital, {"public_key": Key().public.hex()}))

    assert Issuer.objects.count() == 1
