"""A real OpenID Connect provider: allauth's, as a Django project of its own, over HTTPS.

`python -m tests.servers.oidc_site SAID.json`, which says: folder, port, certificate, key, redirect_uri, client_id,
secret, and the people, each with username, password, email, is_verified and groups. tests/servers/oidc.py starts it.
"""

import json
import ssl
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings


def configure(said: dict[str, Any]) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    settings.configure(
        SECRET_KEY="of-the-provider-" + "0123456789" * 5,
        DEBUG=True,
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF="tests.servers.oidc_urls",
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{said['folder']}/provider.sqlite3"}
        },
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "allauth",
            "allauth.account",
            "allauth.idp.oidc",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "allauth.account.middleware.AccountMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.ModelBackend"],
        SESSION_COOKIE_NAME="provider_session",  # the browser has one jar for all ports of a host
        CSRF_COOKIE_NAME="provider_csrf",
        ACCOUNT_EMAIL_VERIFICATION="none",
        IDP_OIDC_PRIVATE_KEY=key.decode(),
        IDP_OIDC_ADAPTER="tests.servers.oidc_urls.Adapter",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def fill(said: dict[str, Any]) -> None:
    from allauth.account.models import EmailAddress
    from allauth.idp.oidc.models import Client
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for person in said["people"]:
        user = User.objects.create_user(person["username"], person["email"], person["password"])
        user.groups.set([Group.objects.get_or_create(name=name)[0] for name in person["groups"]])
        EmailAddress.objects.create(
            user=user, email=person["email"], verified=person["is_verified"], primary=True
        )
    client = Client(id=said["client_id"], name="fma", skip_consent=True)
    client.set_secret(said["secret"])
    client.set_scopes(["openid", "profile", "email"])
    client.set_redirect_uris([said["redirect_uri"]])
    client.save()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def address_string(self) -> str:
        return str(self.client_address[0])


def serve(said: dict[str, Any]) -> None:
    from django.core.wsgi import get_wsgi_application

    server = Server(("127.0.0.1", said["port"]), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(said["certificate"], said["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.base_environ["HTTPS"] = "on"
    server.set_app(get_wsgi_application())
    server.serve_forever()


if __name__ == "__main__":
    facts = json.loads(Path(sys.argv[1]).read_text())
    configure(facts)
    fill(facts)
    serve(facts)
