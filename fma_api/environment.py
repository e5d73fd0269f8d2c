"""Every FMA_* environment variable, as one table, and what reads it.

`read(os.environ)` gives the values under the variables' own names; fma_api/settings.py turns them into Django's
settings. A name that is not in the table, or a value that does not parse, stops the start: a misspelt limit is no
limit at all. `python -m fma_api.environment` prints the table as the page docs/reference/settings.md.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from fma_api import secret_key, url_prefix
from fma_api.environment_values import (
    as_text,
    boolean,
    database_url,
    domains,
    enrolment_token,
    host_names,
    issuer,
    keys_place,
    much_per_time,
    names,
    networks,
    one_of,
    optional_path,
    outgoing_hosts,
    parser_of,
    path,
    rate,
    roles_of_groups,
    seconds,
    secret,
    size_bytes,
    storage_url,
    text,
    url,
    whole,
)
from fma_core.identity.small_file import read_small_file
from fma_django import conf
from fma_django.storage.address import without_secrets

PREFIX = "FMA_"


class EnvironmentInvalid(ImproperlyConfigured):
    """The environment cannot be used; the message has one line for each thing that is wrong."""


@dataclass(frozen=True)
class Setting:
    """One variable. `default` is written as it would be in the environment; `{data}` in it stands for FMA_DATA_DIR."""

    name: str
    parse: Callable[[str], object]
    default: str
    doc: str
    is_secret: bool = False


def _recorded(
    name: str, doc: str, *, parse: Callable[[str], object] | None = None, is_secret: bool = False
) -> Setting:
    """A setting that the record reads too: its type and its default are those of `conf.Settings`.

    parse: for a type that does not say all that must hold.
    """
    field = conf.FIELDS[name]
    parse = parse or parser_of(get_type_hints(conf.Settings, include_extras=True)[field])
    return Setting(name, parse, as_text(getattr(conf.Settings(), field), parse), doc, is_secret=is_secret)


SETTINGS: tuple[Setting, ...] = (
    # Where things are
    Setting(
        "FMA_DATA_DIR",
        path,
        "./fma-data",
        "The folder for everything that fma keeps on disk; by default the database, the weights and the secret key.",
    ),
    Setting(
        "FMA_DATABASE_URL",
        database_url,
        "sqlite:///{data}/fma.sqlite3",
        "The database: `sqlite:////absolute/path.sqlite3` or `postgres://user:password@host:5432/name`.",
        is_secret=True,
    ),
    Setting(
        "FMA_STORAGE_URL",
        storage_url,
        "file://{data}/storage",
        "The store of the weights: `file:///absolute/folder`, or `s3://bucket/prefix` with boto3's `AWS_*`.",
    ),
    Setting(
        "FMA_S3_ENDPOINT_URL",
        url("http", "https", optional=True),
        "",
        "The address of an S3-compatible store that is not Amazon's.",
    ),
    _recorded(
        "FMA_S3_PRESIGNED_SECONDS",
        "How long a presigned address in S3 is valid. Requests for weights are redirected to it (307): clients must "
        "reach the store, and the bytes do not pass through the server. 0 sends weights through the server.",
        parse=whole(least=0),
    ),
    Setting(
        "FMA_SPOOL_DIR",
        optional_path,
        "",
        "The folder where bodies wait before they go to S3; when empty, a folder in the system's temporary folder.",
    ),
    _recorded(
        "FMA_BROKER_URL",
        "The task queue and the cache, as `redis://host:6379/0`; when empty, tasks are kept in the database.",
        parse=url("redis", "rediss", optional=True),
        is_secret=True,
    ),
    # Who may speak to the server
    Setting(
        "FMA_SECRET_KEY",
        secret,
        "",
        "The key that signs sessions and tasks, and that API tokens are derived from: 50 characters or more, the "
        "same for web and worker. `fma serve` creates one in the data folder.",
        is_secret=True,
    ),
    Setting(
        "FMA_ALLOWED_HOSTS",
        host_names,
        "localhost,127.0.0.1,[::1]",
        "The host names that the server answers to, separated by commas.",
    ),
    Setting(
        "FMA_CSRF_TRUSTED_ORIGINS",
        names,
        "",
        "The origins whose forms the admin accepts behind a proxy, such as `https://fma.example.org`.",
    ),
    Setting(
        "FMA_HTTPS",
        boolean,
        "false",
        "Whether all requests must use HTTPS: plain requests are redirected, and cookies are marked secure.",
    ),
    Setting(
        "FMA_HSTS_SECONDS",
        whole(least=0),
        "31536000",
        "With FMA_HTTPS, how long browsers shall insist on HTTPS (Strict-Transport-Security).",
    ),
    Setting(
        "FMA_TRUST_PROXY",
        boolean,
        "false",
        "Whether to trust X-Forwarded-Proto, -Host, -For and -Prefix. Set it only behind a proxy that sets or removes "
        "all four on every request.",
    ),
    Setting(
        "FMA_URL_PREFIX",
        url_prefix.parsed,
        "",
        "The path below which a proxy shows the server, such as `/fl`, whether the proxy strips it or passes it on. "
        "When empty, X-Forwarded-Prefix is read with FMA_TRUST_PROXY.",
    ),
    _recorded(
        "FMA_REGISTRATION",
        "Who may register clients: everybody (`open`), clients with FMA_ENROLMENT_TOKEN (`token`), clients with a "
        "signed JWT (`jwt`), everybody who is approved afterwards (`approval`), or nobody (`closed`; use "
        "`fma client add` then). Clients with an invitation always may.",
    ),
    _recorded(
        "FMA_ENROLMENT_TOKEN",
        "The token that a client must send to register when FMA_REGISTRATION is `token`: 16 characters or more.",
        parse=enrolment_token,
        is_secret=True,
    ),
    _recorded(
        "FMA_APPROVAL_DAYS",
        "The days after which a client that nobody has approved is removed, when FMA_REGISTRATION is `approval`.",
        parse=whole(least=1),
    ),
    _recorded(
        "FMA_SIGNED_UPDATES",
        "Whether updates carry the signature of their client: of all clients (`required`), of those that have a key "
        "(`known_keys`), or nobody looks at signatures (`off`). See the how-to guide on keys.",
    ),
    _recorded(
        "FMA_REGISTRATION_RATE",
        "How many new clients one address may register in a period. More are answered with 429 and Retry-After. Each "
        "process of the server counts alone, unless FMA_BROKER_URL is set.",
        parse=rate,
    ),
    _recorded(
        "FMA_MAX_CLIENTS_PER_MODEL",
        "The number of clients with which a model takes no more registrations (409 `model_full`); 0 means no limit.",
        parse=whole(least=0),
    ),
    _recorded(
        "FMA_JWKS",
        "With `jwt`, the public keys of the identity provider: the path of a JSON Web Key Set, or its `https://` "
        "address, which is read at most once a minute. Needs the extra `oidc`.",
        parse=keys_place,
    ),
    _recorded("FMA_JWT_ISSUER", "With `jwt`, the `iss` that a JWT must have."),
    _recorded("FMA_JWT_AUDIENCE", "With `jwt`, the `aud` that a JWT must have."),
    _recorded(
        "FMA_JWT_ORGANISATION_CLAIM",
        "The claim with the name of a new client's organisation, which must be there.",
    ),
    _recorded("FMA_JWT_TAGS_CLAIM", "The claim with the list of a new client's tags."),
    _recorded(
        "FMA_OUTGOING_HOSTS",
        "The hosts that the server itself may send requests to, such as the one of FMA_JWKS; `.example.org` stands for "
        "itself and every name below it, `*` for any host. S3, MLflow, Redis and Dask are not among these requests.",
        parse=outgoing_hosts,
    ),
    _recorded(
        "FMA_OUTGOING_NETWORKS",
        "The networks of private addresses that these requests may go to, such as `10.0.0.0/8`, separated by commas. "
        "All other addresses must be public.",
        parse=networks,
    ),
    _recorded(
        "FMA_EVALUATION_MIN_CONTRIBUTORS",
        "The least number of organisations (or clients without one) whose merged metrics are shown. A developer can "
        "ask for more, never for fewer.",
        parse=whole(least=2),
    ),
    _recorded(
        "FMA_EVALUATION_REFUSE_ISOLATION",
        "Whether to withhold metrics that would isolate too few contributors when combined with metrics shown "
        "before.",
    ),
    _recorded(
        "FMA_LOGIN_RATE",
        "How often one address may send a wrong password or enrolment token, and how often one account's password may "
        "be guessed from anywhere. Each process of the server counts alone, unless FMA_BROKER_URL is set.",
        parse=rate,
    ),
    _recorded(
        "FMA_SECOND_FACTOR",
        "Whether users who may enter the admin must log in with a [second factor](../how-to/second-factor.md) besides "
        "their password (`required`), or may (`optional`).",
    ),
    _recorded(
        "FMA_OIDC_ISSUER",
        "The issuer of the OpenID Connect [provider](../how-to/log-in-with-your-identity-provider.md) where users may "
        "log in to the admin, such as `https://idp.example.org/realms/hospitals`. Needs the extra `oidc`.",
        parse=issuer,
    ),
    Setting("FMA_OIDC_CLIENT_ID", text, "", "The id of this server as a client of that provider."),
    Setting("FMA_OIDC_CLIENT_SECRET", text, "", "The secret of this client.", is_secret=True),
    Setting(
        "FMA_OIDC_NAME",
        text,
        "single sign-on",
        "The name of the provider on the login page: `Log in with NAME`.",
    ),
    Setting(
        "FMA_OIDC_SCOPES",
        names,
        "openid,profile,email",
        "The scopes that are asked for, separated by commas.",
    ),
    _recorded(
        "FMA_OIDC_NEW_USERS",
        "Whether everybody who logs in at the provider is made a user; otherwise only users log in who are bound to "
        "their account there.",
    ),
    _recorded(
        "FMA_OIDC_MATCH_EMAIL",
        "Whether the first login binds the account to the only user with the same e-mail address, if the provider "
        "says that it is verified.",
    ),
    _recorded(
        "FMA_OIDC_EMAIL_DOMAINS",
        "The domains of the verified e-mail addresses that may log in, separated by commas; empty means all accounts.",
        parse=domains,
    ),
    Setting(
        "FMA_OIDC_ROLES_CLAIM",
        text,
        "groups",
        "The claim whose values give roles; a dot leads into an object, as in `realm_access.roles`.",
    ),
    _recorded(
        "FMA_OIDC_ROLES",
        "The roles that values of the claim give, such as `fma-operators=operator,/audit=auditor`. They are given and "
        "taken at each login; other roles stay.",
        parse=roles_of_groups,
    ),
    Setting(
        "FMA_PASSWORD_LOGIN",
        boolean,
        "true",
        "Whether users may log in with a password. `false`, which needs FMA_OIDC_ISSUER, counts for everybody.",
    ),
    Setting(
        "FMA_SESSION_SECONDS",
        whole(least=60),
        "28800",
        "How long a login of the admin lasts after the last request. A new password ends it at once.",
    ),
    Setting(
        "FMA_DEBUG",
        boolean,
        "false",
        "Whether errors show Django's debug page, with settings and source code. Never set it in production.",
    ),
    # How much is accepted
    _recorded(
        "FMA_MAX_UPDATE_BYTES",
        "The largest binary body (safetensors) that is accepted.",
    ),
    _recorded(
        "FMA_MAX_JSON_BYTES",
        "The largest JSON body with weights; other JSON may have 1 MiB. Beyond 64 KiB, weights are parsed in a process "
        "of their own, one for each process of the HTTP server.",
    ),
    _recorded(
        "FMA_JSON_MEMORY_BYTES",
        "How much memory JSON may take in each process of the HTTP server, together with the one that parses large "
        "JSON for it; a number in a body takes about 64 bytes. Bodies that find too little of it free are answered "
        "with 503 and Retry-After, and those that need more with 413.",
    ),
    _recorded(
        "FMA_MAX_ARRAYS",
        "The largest number of arrays in one set of weights.",
        parse=whole(least=1),
    ),
    _recorded(
        "FMA_CLIENT_UPDATE_RATE",
        "How many updates one client may send in a period (s, min, hour or day), such as `60/min`, also all at "
        "once; empty means no limit. More are answered with 429 and Retry-After. This rate and the next three are "
        "checked before a body travels. Each process of the server counts alone, unless FMA_BROKER_URL is set.",
        parse=much_per_time(whole(least=1), "60/min"),
    ),
    _recorded(
        "FMA_CLIENT_BYTE_RATE",
        "How many bytes of updates one client may send in a period, such as `10 GiB/hour`.",
        parse=much_per_time(size_bytes, "10 GiB/hour"),
    ),
    _recorded(
        "FMA_MODEL_UPDATE_RATE",
        "How many updates all clients of one model may send in a period.",
        parse=much_per_time(whole(least=1), "5000/min"),
    ),
    _recorded(
        "FMA_MODEL_BYTE_RATE",
        "How many bytes of updates all clients of one model may send in a period.",
        parse=much_per_time(size_bytes, "100 GiB/hour"),
    ),
    _recorded(
        "FMA_MAX_UPLOADS",
        "How many [uploads in parts](../how-to/send-large-updates.md) one client, or one developer, may have open. "
        "Beyond that, the oldest upload that has been idle for ten minutes is dropped.",
        parse=whole(least=1),
    ),
    _recorded(
        "FMA_MAX_UPLOADING_BYTES",
        "How many bytes the open uploads of one client, or one developer, may announce together.",
    ),
    _recorded(
        "FMA_UPLOAD_SECONDS",
        "How long an upload may take from its beginning. After that its parts are removed.",
        parse=whole(least=1),
    ),
    # How a round is run
    _recorded(
        "FMA_LEASE_SECONDS",
        "How long a worker holds a round without renewing its lease, before another worker may take it.",
    ),
    _recorded(
        "FMA_MAX_ATTEMPTS",
        "How many attempts an aggregation has before its round fails.",
        parse=whole(least=1),
    ),
    _recorded(
        "FMA_AGGREGATION_TIMEOUT_SECONDS",
        "How many seconds one aggregation may take before its worker process is killed.",
        parse=whole(least=1),
    ),
    _recorded(
        "FMA_ORPHAN_GRACE_SECONDS",
        "The retention of a stored file that no row names. The sweep deletes older ones.",
    ),
    _recorded(
        "FMA_EXECUTOR",
        "How a round is aggregated: by the threads of a worker, by one thread, or by a Dask cluster. The result is "
        "the same, bit for bit.",
    ),
    _recorded(
        "FMA_THREADS",
        "The number of threads with `threads`; 0 means one for each core.",
        parse=whole(least=0),
    ),
    _recorded(
        "FMA_DASK_SCHEDULER",
        "The address of the cluster's scheduler with `dask`, such as `tcp://scheduler:8786`.",
        parse=url("tcp", "tls", optional=True),
    ),
    _recorded(
        "FMA_DASK_TLS_CA",
        "For a scheduler at `tls://…`: the file of the certificates that its certificate and those of its workers are "
        "signed by, in PEM format.",
    ),
    _recorded("FMA_DASK_TLS_CERTIFICATE", "The file of this machine's own certificate, in PEM format."),
    _recorded("FMA_DASK_TLS_KEY", "The file of the key of that certificate, without a password."),
    _recorded(
        "FMA_TELEMETRY_DAYS",
        "The retention of [clients' reports](telemetry.md), in days.",
        parse=whole(least=1),
    ),
    Setting(
        "FMA_TELEMETRY",
        one_of("on", "off"),
        "on",
        "Read by clients, not by the server: a client started with `off` does not report on itself.",
    ),
    # Where metrics go as well
    _recorded(
        "FMA_MLFLOW_TRACKING_URI",
        "The MLflow server to [forward metrics to](../how-to/watch-clients.md#elsewhere), such as "
        "`http://mlflow:5000`; needs the extra `mlflow`.",
        is_secret=True,
    ),
    _recorded(
        "FMA_TENSORBOARD_DIR",
        "The folder for TensorBoard's metrics; needs the extra `tensorboard`.",
    ),
    # The processes
    Setting("FMA_WEB_WORKERS", whole(least=1), "1", "The number of processes of the HTTP server."),
    Setting(
        "FMA_WEB_THREADS",
        whole(least=1),
        "16",
        "The most threads of each process of the HTTP server. They bound its requests at one time, without those "
        "that wait for news, and its database connections.",
    ),
    Setting(
        "FMA_BODIES_PER_CLIENT",
        whole(least=1),
        "4",
        "How many bodies of more than 64 KiB one client may send at one time to each process of the HTTP server. "
        "Further ones wait, and are answered with 429 and Retry-After when it takes too long.",
    ),
    Setting(
        "FMA_BODIES_PER_ADDRESS",
        whole(least=1),
        "8",
        "The same for all clients of one address, or of one IPv6 network; with FMA_TRUST_PROXY, the forwarded one. "
        "All addresses together have three quarters of FMA_WEB_THREADS.",
    ),
    Setting(
        "FMA_MAX_WAITERS",
        whole(least=0),
        "1000",
        "How many clients may wait for news in each process of the HTTP server. Further ones are answered at once.",
    ),
    Setting(
        "FMA_WORKER_PROCESSES", whole(least=1), "2", "How many rounds one worker aggregates at one time."
    ),
    Setting(
        "FMA_POLL_SECONDS",
        seconds,
        "1",
        "How often an idle worker looks for tasks in the database without a wake-up. Not used with FMA_BROKER_URL.",
    ),
    _recorded(
        "FMA_WORKER_SEEN_SECONDS",
        "How long after the last sign of life of a worker `/readyz` answers 503.",
    ),
    _recorded(
        "FMA_MAX_WAIT_SECONDS",
        "The longest time that one request may wait for news.",
    ),
    Setting(
        "FMA_LOG_LEVEL",
        one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        "The least important events that are logged.",
    ),
    Setting(
        "FMA_LOG_FORMAT",
        one_of("console", "json"),
        "console",
        "The format of the log on standard error, one event a line: for people or for programs.",
    ),
)


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Every setting's value under its name, from the environment or its default.

    As in a .env file, an empty value means the default. A secret may be kept in a file that NAME_FILE names, whose
    content is taken without surrounding white space.
    Raises EnvironmentInvalid that says all that is wrong, one line each.
    """
    problems = _unknown_names(environ)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        try:
            values[setting.name] = _value(setting, environ, data_dir=str(values.get("FMA_DATA_DIR", "")))
        except EnvironmentInvalid as error:
            problems.append(str(error))
    problems = problems or _contradictions(values)
    if problems:
        raise EnvironmentInvalid("\n".join(problems))
    if not values["FMA_SECRET_KEY"]:
        values["FMA_SECRET_KEY"] = _kept_secret_key(values["FMA_DATA_DIR"])
    return values


def as_markdown() -> str:
    """The page docs/reference/settings.md."""
    files = ", ".join(f"`{setting.name}_FILE`" for setting in SETTINGS if setting.is_secret)
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable; an empty one means the default. The server does not start with a",
        "name that begins with `FMA_` and is not in this table, or with a value that it cannot parse.",
        "",
        f"A secret can be read from a file that another variable names: {files}.",
        "Every `fma` command takes `--data DIR` in place of `FMA_DATA_DIR`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for setting in SETTINGS:
        default = f"`{setting.default.replace('{data}', 'DATA_DIR')}`" if setting.default else ""
        lines.append(f"| `{setting.name}` | {default} | {setting.doc} |")
    lines += ["", "This page is written by `python -m fma_api.environment > docs/reference/settings.md`."]
    return "\n".join(lines) + "\n"


# Of services named fma, fma-web, …:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_KUBERNETES = re.compile(
    r"FMA_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether a cluster put the variable into every container, and nobody meant a setting by it."""
    return _KUBERNETES.fullmatch(name) is not None and (
        not name.endswith("_PORT") or "_PORT_" in name or name.endswith("_SERVICE_PORT") or "://" in value
    )


def _unknown_names(environ: Mapping[str, str]) -> list[str]:
    known = [setting.name for setting in SETTINGS]
    known += [f"{setting.name}_FILE" for setting in SETTINGS if setting.is_secret]
    problems = []
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        if _is_of_kubernetes(name, environ[name]):
            continue
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        problems.append(f"{name} is not a setting of fma; the nearest one is {nearest}")
    return problems


def _value(setting: Setting, environ: Mapping[str, str], *, data_dir: str) -> object:
    given = environ.get(setting.name, "").strip()
    file = environ.get(f"{setting.name}_FILE", "").strip() if setting.is_secret else ""
    if given and file:
        raise EnvironmentInvalid(f"{setting.name} and {setting.name}_FILE are both set; set one of them")
    if file:
        given = _content(setting, file)
    try:
        return setting.parse(given or setting.default.replace("{data}", quote(data_dir)))
    except ValueError as error:
        shown = (
            "something else (it is a secret, and not shown)"
            if setting.is_secret
            else f"'{without_secrets(given)}'"
        )
        raise EnvironmentInvalid(f"{setting.name} must be {error}; found {shown}") from error


def _content(setting: Setting, file: str) -> str:
    try:
        content = read_small_file(file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentInvalid(
            f"{setting.name}_FILE names '{file}', which cannot be read: {error}"
        ) from error
    if not content:
        raise EnvironmentInvalid(f"{setting.name}_FILE names '{file}', which is empty")
    return content


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values["FMA_REGISTRATION"] == "token" and not values["FMA_ENROLMENT_TOKEN"]:
        problems.append("FMA_REGISTRATION is 'token', so FMA_ENROLMENT_TOKEN must be set; it is not")
    if values["FMA_REGISTRATION"] == "jwt":
        problems.extend(conf.jwt_problems(values))
        if find_spec("jwt") is None or find_spec("cryptography") is None:
            problems.append(
                "FMA_REGISTRATION is 'jwt', which needs PyJWT: pip install 'federated-model-aggregation[oidc]'"
            )
    problems.extend(_oidc_contradictions(values))
    if values["FMA_DEBUG"] and values["FMA_HTTPS"]:
        problems.append(
            "FMA_DEBUG shows settings and source code to whoever meets an error, and FMA_HTTPS is for a server of "
            "others; unset one of them"
        )
    if values["FMA_EXECUTOR"] == "dask":
        problems.extend(conf.dask_problems(values))
        problems.extend(
            f"{name} must be a file that can be read; '{values[name]}' is not"
            for name in conf.DASK_TLS
            if values[name] and not os.access(values[name], os.R_OK)
        )
        if find_spec("distributed") is None:
            problems.append(
                "FMA_EXECUTOR is 'dask', which is not installed: pip install 'federated-model-aggregation[dask]'"
            )
    if values["FMA_STORAGE_URL"].startswith("s3:") and find_spec("boto3") is None:
        problems.append(
            "FMA_STORAGE_URL is in S3, and boto3 is not installed: pip install 'federated-model-aggregation[s3]'"
        )
    for name, package, extra in (
        ("FMA_MLFLOW_TRACKING_URI", "mlflow", "mlflow"),
        ("FMA_TENSORBOARD_DIR", "tensorboard", "tensorboard"),
    ):
        if values[name] and find_spec(package) is None:
            problems.append(
                f"{name} is set, and {package} is not installed: pip install 'federated-model-aggregation[{extra}]'"
            )
    problems.extend(
        "FMA_CSRF_TRUSTED_ORIGINS must be origins with their scheme, such as https://fma.example.org; "
        f"found '{without_secrets(origin)}'"
        for origin in values["FMA_CSRF_TRUSTED_ORIGINS"]
        if not re.match(r"https?://", origin)
    )
    return problems


def _oidc_contradictions(values: Mapping[str, Any]) -> list[str]:
    if not values["FMA_OIDC_ISSUER"]:
        if values["FMA_PASSWORD_LOGIN"]:
            return []
        return ["FMA_PASSWORD_LOGIN is false, so FMA_OIDC_ISSUER must be set; nobody could log in"]
    problems = [
        f"FMA_OIDC_ISSUER is set, so {name} must be set; it is not"
        for name in ("FMA_OIDC_CLIENT_ID", "FMA_OIDC_CLIENT_SECRET")
        if not values[name]
    ]
    if "openid" not in values["FMA_OIDC_SCOPES"]:
        problems.append("FMA_OIDC_SCOPES must have openid")
    if any(find_spec(package) is None for package in ("jwt", "oauthlib", "requests")):
        problems.append(
            "FMA_OIDC_ISSUER is set, which needs packages: pip install 'federated-model-aggregation[oidc]'"
        )
    return problems


def _kept_secret_key(data_dir: Path) -> str:
    try:
        key = secret_key.read(data_dir)
    except OSError as error:
        raise EnvironmentInvalid(
            f"FMA_SECRET_KEY is not set, and {error.filename}: {error.strerror}"
        ) from error
    if key is None:
        raise EnvironmentInvalid(
            "FMA_SECRET_KEY (or FMA_SECRET_KEY_FILE) must be set to 50 random characters or more, the same for web and "
            f"worker; it is not, and {data_dir} keeps no key, which 'fma serve' makes there"
        )
    return key


if __name__ == "__main__":
    print(as_markdown(), end="")
