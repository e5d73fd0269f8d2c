"""Django's settings. What a deployment may change comes from the environment: see fma_api/environment.py.

Each FMA_* setting is also a Django setting of the same name.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import environ
from django.urls import reverse_lazy

from fma_api import environment, logging

_environment: dict[str, Any] = environment.read(os.environ)
globals().update(_environment)


def _database(url: str) -> dict[str, Any]:
    if url.startswith("sqlite:"):
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(url.removeprefix("sqlite://").removeprefix("/")) or ":memory:",
            # Measured: with Django's defaults 173 of 480 concurrent writes failed with "database is locked"; with
            # these, none.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
            "CONN_MAX_AGE": None,  # opening the file takes longer than most requests: 1 to 2.6 ms measured
        }
    # A kept connection saves half of the time from enqueue to run on PostgreSQL; the check heals it after a restart.
    database = {**environ.Env.db_url_config(url), "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    if database["ENGINE"] == "django.db.backends.postgresql":
        # libpq itself waits without end for a server that accepts a connection and says nothing, and two hours for one
        # that has vanished. What the URL says comes first.
        patience = {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        }
        database["OPTIONS"] = {**patience, **database.get("OPTIONS", {})}
    return database


def _broker(url: str) -> str:
    """Let whoever asks Redis give up one that says nothing; longer than django-q's own wait for a task, a second."""
    limits = "socket_timeout=5&socket_connect_timeout=5"
    return url if "socket_timeout=" in url else f"{url}{'&' if '?' in url else '?'}{limits}"


# The project
ROOT_URLCONF = "fma_api.urls"
WSGI_APPLICATION = "fma_api.wsgi.application"
SECRET_KEY = _environment["FMA_SECRET_KEY"]
DEBUG = _environment["FMA_DEBUG"]
INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "fma_api.apps.FmaAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "fma_django",
    "fma_api",
]
MIDDLEWARE = [
    "fma_api.security_headers.SecurityHeaders",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "fma_api.trailing_slash.TrailingSlashMiddleware",
    "fma_api.request_log.RequestLogMiddleware",
    "fma_api.json_memory.JsonMemoryMiddleware",
    "fma_api.for_browsers.Sessions",
    "fma_api.for_browsers.Common",
    "fma_api.for_browsers.Csrf",
    "fma_api.for_browsers.Authentication",
    "fma_api.for_browsers.Messages",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before those of unfold, of which one is replaced there.
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STATIC_URL = "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "fma_api.static_files.PrefixedStaticFiles"},
}
WHITENOISE_USE_FINDERS = True  # so that no deployment needs a collectstatic step
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = ["fma_api.formats"]
LANGUAGE_CODE = "en-us"

# The record
DATABASES = {"default": _database(_environment["FMA_DATABASE_URL"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _broker(_environment["FMA_BROKER_URL"]),
    }
    if _environment["FMA_BROKER_URL"]
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}

# The queue. Delivery is at least once: with `retry` below `timeout`, a task that still runs would be handed out again.
Q_CLUSTER: dict[str, Any] = {
    "name": "fma",
    "label": "Task queue",
    "workers": _environment["FMA_WORKER_PROCESSES"],
    "timeout": _environment["FMA_AGGREGATION_TIMEOUT_SECONDS"],
    "retry": _environment["FMA_AGGREGATION_TIMEOUT_SECONDS"] + 60,
    "max_attempts": 3,  # 0 would retry for ever
    "ack_failures": True,
    "save_limit": -1,  # failures only: rounds say themselves what became of them
    "catch_up": False,
    **(
        {"redis": _broker(_environment["FMA_BROKER_URL"])}
        if _environment["FMA_BROKER_URL"]
        else {
            "orm": "default",
            "broker_class": "fma_django.work.broker.WokenBroker",
            "poll": _environment["FMA_POLL_SECONDS"],
        }
    ),
}

# Who is let in
ALLOWED_HOSTS = _environment["FMA_ALLOWED_HOSTS"]
CSRF_TRUSTED_ORIGINS = _environment["FMA_CSRF_TRUSTED_ORIGINS"]
AUTHENTICATION_BACKENDS = ["fma_django.accounts.grants.RolesBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
USE_X_FORWARDED_HOST = _environment["FMA_TRUST_PROXY"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _environment["FMA_TRUST_PROXY"] else None
SECURE_SSL_REDIRECT = _environment["FMA_HTTPS"]
SECURE_REDIRECT_EXEMPT = [r"(^|/)(healthz|readyz)$"]  # a health check comes from inside, without TLS
SECURE_HSTS_SECONDS = _environment["FMA_HSTS_SECONDS"] if _environment["FMA_HTTPS"] else 0
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"  # of /admin/login/ itself, when no page sent the person there
CSRF_FAILURE_VIEW = "fma_api.problems.csrf_failure"
SESSION_COOKIE_AGE = _environment["FMA_SESSION_SECONDS"]
SESSION_SAVE_EVERY_REQUEST = True  # it lasts so long after the last request, not after the login
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"  # "Strict" would ask whoever follows a link into the admin to log in again
SESSION_COOKIE_SECURE = _environment["FMA_HTTPS"]
CSRF_COOKIE_SECURE = _environment["FMA_HTTPS"]
CSRF_COOKIE_HTTPONLY = True  # forms and the API's documentation have the token in the page
# Other Django projects of the same host have Django's names. Browsers take __Secure- over HTTPS alone.
SESSION_COOKIE_NAME = "__Secure-fma_session" if _environment["FMA_HTTPS"] else "fma_session"
CSRF_COOKIE_NAME = "__Secure-fma_csrf" if _environment["FMA_HTTPS"] else "fma_csrf"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # no cookie of its own
SILENCED_SYSTEM_CHECKS = [
    # Other names below this host, and browsers' preload lists, are not ours to decide about.
    "security.W005",
    "security.W021",
    # Django looks for its own middleware by name; ours is derived from it (fma_api.for_browsers), or sets the same
    # header (fma_api.security_headers).
    "security.W002",
    "security.W003",
]
# Logging in goes through the stages of allauth, of which the second factor is one. None of its own pages are used.
ACCOUNT_ADAPTER = "fma_api.login_adapter.LoginAdapter"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGIN_METHODS = {"username"}
SOCIALACCOUNT_ADAPTER = "fma_api.oidc.adapter.SignOnAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = (
    True  # a form's redirect to the provider would need its address in the page's policy
)
ACCOUNT_RATE_LIMITS = False  # fma_api.v1.limits has the same for all ways to log in
MFA_ADAPTER = "fma_api.second_factor.adapter.SecondFactorAdapter"
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_REAUTHENTICATION_REQUIRED = False  # the forms themselves ask for the password, or a code
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_TOLERANCE = 1  # a clock may be half a minute wrong
DATA_UPLOAD_MAX_MEMORY_SIZE = _environment["FMA_MAX_JSON_BYTES"]

# The API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fma_api.v1.authentication.ClientAuthentication",
        "fma_api.v1.authentication.TokenAuthentication",
        "fma_api.v1.authentication.BasicAuthentication",
        "fma_api.v1.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "rest_framework.filters.OrderingFilter",
    ],
    "DEFAULT_RENDERER_CLASSES": ["fma_api.renderers.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["fma_api.parsers.OrjsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "fma_api.problems.handle",
    "NUM_PROXIES": 1
    if _environment["FMA_TRUST_PROXY"]
    else 0,  # None would believe anybody's X-Forwarded-For
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "fma",
    "DESCRIPTION": "Federated model aggregation: clients send updates, the server aggregates and publishes models.",
    "VERSION": version("federated-model-aggregation"),
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "ModelState": "fma_django.models.federated_model.ModelState",
        "RoundState": "fma_django.models.round.RoundState",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "fma_api.v1.schema.name_the_prefix",
    ],
}

# The admin
UNFOLD = {
    "SITE_TITLE": "fma",
    "SITE_HEADER": "fma",
    "SITE_SUBHEADER": "Federated model aggregation",
    "SITE_URL": reverse_lazy("home"),
    "DASHBOARD_CALLBACK": "fma_django.admin.dashboard.add_counts",
    "ACCOUNT": {
        "navigation": [
            {"title": "Second factor", "link": reverse_lazy("mfa_index")},
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
        ]
    },
}

# The log
LOGGING = logging.configure(level=_environment["FMA_LOG_LEVEL"], form=_environment["FMA_LOG_FORMAT"])
