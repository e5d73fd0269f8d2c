"""The values that environment variables may have, and the refusal of all others."""

import re
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from fma_api import environment, secret_key
from fma_api.environment import EnvironmentInvalid, as_markdown, read
from fma_django import conf

KEY = {"FMA_SECRET_KEY": "tests-only" * 5}
REPOSITORY = Path(__file__).resolve().parents[2]


def test_an_empty_environment_but_for_the_key_gives_every_default() -> None:
    values = read(KEY)

    assert values.keys() == {setting.name for setting in environment.SETTINGS}
    assert values["FMA_DATA_DIR"] == Path.cwd() / "fma-data"
    assert values["FMA_DATABASE_URL"] == f"sqlite:///{Path.cwd()}/fma-data/fma.sqlite3"
    assert values["FMA_MAX_UPDATE_BYTES"] == 2**31
    assert values["FMA_ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("FMA_MAX_UPDATE_BYTES", "1048576", 2**20),
        ("FMA_MAX_UPDATE_BYTES", "3 MiB", 3 * 2**20),
        ("FMA_MAX_UPDATE_BYTES", "3GiB", 3 * 2**30),
        ("FMA_DEBUG", "True", True),
        ("FMA_DEBUG", "off", False),
        ("FMA_DEBUG", "", False),
        ("FMA_LEASE_SECONDS", "0.5", 0.5),
        ("FMA_ALLOWED_HOSTS", "a.example, b.example,", ["a.example", "b.example"]),
        (
            "FMA_ALLOWED_HOSTS",
            ".example.org,fma,10.0.0.1,[::1],*",
            [".example.org", "fma", "10.0.0.1", "[::1]", "*"],
        ),
        *(
            ("FMA_DATABASE_URL", url, url)
            for url in (
                "postgres:///fma",
                "postgres://u@/fma",
                "postgres:///fma?host=/run/postgresql",
                "postgres:////run/pg/fma",
                "postgres://u@//run/pg/fma",
                "postgres://u@a:5432,b:5432/fma",
                "postgres:///fma?service=x",
                "postgres://u:p%23@[::1]:5432/fma",
                "postgres://u:@db/fma?sslmode=require&options=-csearch_path%3Dfma",
                "sqlite://fma.sqlite3",
                "sqlite:////srv/fma.sqlite3",
            )
        ),
        ("FMA_LOG_FORMAT", "JSON", "json"),
        ("FMA_LOGIN_RATE", "5/s", (5, 1)),
        (
            "FMA_OIDC_ROLES",
            "ops=operator, /a=b=data scientist,",
            (("ops", "operator"), ("/a=b", "data scientist")),
        ),
        ("FMA_OIDC_EMAIL_DOMAINS", "Example.org,b.example", ("example.org", "b.example")),
        ("FMA_SECOND_FACTOR", "Required", "required"),
    ],
)
def test_a_value_is_read(name: str, text: str, value: object) -> None:
    assert read(KEY | {name: text})[name] == value


@pytest.mark.parametrize(
    ("name", "text", "must_be"),
    [
        ("FMA_MAX_UPDATE_BYTES", "2 GB", "a number of bytes, such as 1048576, 64 MiB or 2 GiB; found '2 GB'"),
        ("FMA_MAX_UPDATE_BYTES", "0", "a number of bytes"),
        ("FMA_MAX_ARRAYS", "0", "a whole number, 1 or more; found '0'"),
        ("FMA_THREADS", "-1", "a whole number, 0 or more; found '-1'"),
        ("FMA_DEBUG", "maybe", "true or false; found 'maybe'"),
        ("FMA_LEASE_SECONDS", "nan", "a number of seconds above 0; found 'nan'"),
        ("FMA_REGISTRATION", "public", "one of open, token, approval, jwt, closed; found 'public'"),
        ("FMA_STORAGE_URL", "/srv/fma", "a storage URL that starts with file:/// or s3://; found '/srv/fma'"),
        ("FMA_STORAGE_URL", "s3://", "a storage URL of a bucket and a prefix after s3://"),
        ("FMA_STORAGE_URL", "s3://key:secret@bucket", "a storage URL of a bucket"),
        *(
            ("FMA_STORAGE_URL", url, "a storage URL of three slashes and an absolute folder")
            for url in ("file://weights", "file:weights", "file://~/weights", "file:///")
        ),
        *(
            (
                "FMA_ALLOWED_HOSTS",
                hosts,
                "host names of letters, digits, '-' and '.', without scheme, port or quotes",
            )
            for hosts in (
                "['a']",
                "https://a",
                "a:8000",
                "*.a",
                "a b",
                '"a"',
                "a,b_c",
                ",",
                "a/",
                "[a]",
                "example.org.",
            )
        ),
        ("FMA_DATABASE_URL", "sqlite:fma.sqlite3", "sqlite:/// and a path"),
        ("FMA_DATABASE_URL", "sqlite://", "sqlite:/// and a path"),
        *(
            ("FMA_DATABASE_URL", url, "postgres://user:password@host:5432/name, where each character")
            for url in (
                "postgres://u:p#hunter2@db/fma",
                "postgres://u:p/hunter2@db/fma",
                "postgres://u:12/hunter2@db/fma",
                "postgres://u:hunter2@db",
            )
        ),
        *(
            (name, f"{scheme}://u:hunter2{odd}@127.0.0.1", "a")
            for name, scheme in (
                ("FMA_DATABASE_URL", "postgres"),
                ("FMA_BROKER_URL", "redis"),
                ("FMA_S3_ENDPOINT_URL", "http"),
                ("FMA_STORAGE_URL", "s3"),
            )
            for odd in ("℀", "＃", "[")
        ),
        (
            "FMA_S3_ENDPOINT_URL",
            "key:hunter2@minio:9000",
            "a URL that starts with http:// or https://; found '…@minio",
        ),
        ("FMA_STORAGE_URL", "s3:/key:hunter2@b/p", "a storage URL of a bucket"),
        ("FMA_DATA_DIR", "~nobody_of_this_name/x", "a path"),
        ("FMA_SECRET_KEY", "hunter2", "50 random characters or more"),
        ("FMA_SECRET_KEY", "42" * 40, "50 random characters or more"),
        ("FMA_ENROLMENT_TOKEN", "4711", "16 characters or more"),
        ("FMA_ENROLMENT_TOKEN", "1212" * 8, "16 characters or more"),
        ("FMA_LOGIN_RATE", "often", "a number of requests in a period"),
        ("FMA_OIDC_ROLES", "operator", "values of the claim with their roles"),
        ("FMA_OIDC_ROLES", "ops=", "values of the claim with their roles"),
        ("FMA_OIDC_EMAIL_DOMAINS", "@example.org", "host names"),
        (
            "FMA_OIDC_ISSUER",
            "http://idp.example.org",
            "an address of at most 200 characters that starts with https://",
        ),
        ("FMA_OIDC_ISSUER", "https://", "an address of at most 200"),
        ("FMA_OIDC_ISSUER", "https://idp.example.org/?realm=x", "an address of at most 200"),
        ("FMA_OIDC_ISSUER", f"https://idp.example.org/{'x' * 200}", "an address of at most 200"),
    ],
)
def test_a_bad_value_says_what_must_hold_and_what_was_found(name: str, text: str, must_be: str) -> None:
    with pytest.raises(EnvironmentInvalid) as refused:
        read(KEY | {name: text})

    assert f"{name} must be {must_be}" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_a_bad_secret_is_not_shown() -> None:
    with pytest.raises(EnvironmentInvalid) as refused:
        read(KEY | {"FMA_DATABASE_URL": "mysql://root:hunter2@db/fma"})

    assert "hunter2" not in str(refused.value)
    assert "FMA_DATABASE_URL must be a URL that starts with sqlite://" in str(refused.value)


def test_an_unknown_name_is_refused_and_the_nearest_is_named() -> None:
    with pytest.raises(
        EnvironmentInvalid, match="FMA_MAX_UPDATE_BYTE is not .* nearest one is FMA_MAX_UPDATE_BYTES"
    ):
        read(KEY | {"FMA_MAX_UPDATE_BYTE": "1"})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(EnvironmentInvalid) as refused:
        read(KEY | {"FMA_DEBUG": "maybe", "FMA_THREDS": "1", "FMA_MAX_ARRAYS": "many"})

    assert len(str(refused.value).splitlines()) == 3


def test_names_of_others_are_not_ours_to_judge() -> None:
    read(KEY | {"PATH": "/bin", "FEDERATED": "yes"})


def test_token_registration_needs_the_token() -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_ENROLMENT_TOKEN must be set"):
        read(KEY | {"FMA_REGISTRATION": "token"})


def test_a_trusted_origin_needs_its_scheme() -> None:
    with pytest.raises(EnvironmentInvalid, match="found 'fma.example.org'"):
        read(KEY | {"FMA_CSRF_TRUSTED_ORIGINS": "fma.example.org"})


def test_a_secret_can_be_kept_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "database_url"
    file.write_text("postgres://fma:secret@db/fma\n")

    assert (
        read(KEY | {"FMA_DATABASE_URL_FILE": str(file)})["FMA_DATABASE_URL"] == "postgres://fma:secret@db/fma"
    )


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentInvalid, match="both set"):
        read(KEY | {"FMA_SECRET_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_secret_file_that_is_missing_or_empty_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)

    with pytest.raises(EnvironmentInvalid, match="FMA_SECRET_KEY_FILE names"):
        read({"FMA_SECRET_KEY_FILE": str(file)})


def test_no_more_of_a_secret_file_is_read_than_it_may_have() -> None:
    with pytest.raises(EnvironmentInvalid, match=r"cannot be read: .*it has more than 65536 bytes"):
        read({"FMA_SECRET_KEY_FILE": "/dev/zero"})


def test_only_secrets_have_files() -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_DEBUG_FILE is not a setting"):
        read(KEY | {"FMA_DEBUG_FILE": "/x"})


def test_a_missing_secret_key_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_SECRET_KEY .* must be set to 50 random characters"):
        read({"FMA_DATA_DIR": str(tmp_path)})


def test_a_key_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"

    secret_key.make(folder)
    first = read({"FMA_DATA_DIR": str(folder)})["FMA_SECRET_KEY"]
    secret_key.make(folder)

    assert read({"FMA_DATA_DIR": str(folder)})["FMA_SECRET_KEY"] == first
    assert len(first) >= 50
    assert stat.S_IMODE((folder / "secret_key").stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["secret_key"]


def test_the_environment_comes_before_the_kept_key(tmp_path: Path) -> None:
    secret_key.make(tmp_path)

    assert read(KEY | {"FMA_DATA_DIR": str(tmp_path)})["FMA_SECRET_KEY"] == KEY["FMA_SECRET_KEY"]


@pytest.mark.parametrize("name", list(conf.FIELDS))
def test_a_setting_of_the_record_is_the_same_in_the_table_and_on_the_page(name: str) -> None:
    default = getattr(conf.Settings(), conf.FIELDS[name])
    page = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()

    [setting] = [setting for setting in environment.SETTINGS if setting.name == name]
    [written] = re.findall(rf"^\| `{name}` \| `?(.*?)`? \|", page, re.MULTILINE)

    assert (read(KEY)[name], type(read(KEY)[name])) == (default, type(default))
    assert written == setting.default
    assert setting.parse(written) == default


def test_every_setting_of_the_record_has_a_name_of_its_own() -> None:
    assert len(conf.FIELDS) == len(fields(conf.Settings))
    assert conf.FIELDS["FMA_LEASE_SECONDS"] == "lease_s"


def test_the_reference_page_is_the_table() -> None:
    page = REPOSITORY / "docs" / "reference" / "settings.md"

    assert page.read_text() == as_markdown(), (
        "run: python -m fma_api.environment > docs/reference/settings.md"
    )


def test_a_cluster_needs_the_address_of_its_scheduler() -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_EXECUTOR is 'dask', so FMA_DASK_SCHEDULER must be set"):
        read(KEY | {"FMA_EXECUTOR": "dask"})
    with pytest.raises(
        EnvironmentInvalid, match="a URL that starts with tcp:// or tls://; found 'host:8786'"
    ):
        read(KEY | {"FMA_EXECUTOR": "dask", "FMA_DASK_SCHEDULER": "host:8786"})

    values = read(KEY | {"FMA_EXECUTOR": "dask", "FMA_DASK_SCHEDULER": "tcp://host:8786"})

    assert values["FMA_DASK_SCHEDULER"] == "tcp://host:8786"


DASK = KEY | {"FMA_EXECUTOR": "dask"}


@pytest.fixture
def tls_files(tmp_path: Path) -> dict[str, str]:
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).write_text("PEM")
    return {f"FMA_DASK_TLS_{name.upper()}": str(tmp_path / name) for name in ("ca", "certificate", "key")}


def test_a_cluster_over_tls_has_its_files(tls_files: dict[str, str]) -> None:
    values = read(DASK | tls_files | {"FMA_DASK_SCHEDULER": "tls://host:8786"})

    assert {name: str(values[name]) for name in tls_files} == tls_files


@pytest.mark.parametrize("left_out", ["FMA_DASK_TLS_CA", "FMA_DASK_TLS_CERTIFICATE", "FMA_DASK_TLS_KEY"])
def test_tls_to_a_cluster_that_is_half_given_is_refused(tls_files: dict[str, str], left_out: str) -> None:
    scheduler = {"FMA_DASK_SCHEDULER": "tls://host:8786"}
    file = Path(tls_files.pop(left_out))
    with pytest.raises(EnvironmentInvalid, match=f"begins with tls://, so {left_out} must be set; it is not"):
        read(DASK | scheduler | tls_files)

    gone = file.with_name("gone")
    with pytest.raises(
        EnvironmentInvalid, match=f"{left_out} must be a file that can be read; '{gone}' is not"
    ):
        read(DASK | scheduler | tls_files | {left_out: str(gone)})

    plain = {"FMA_DASK_SCHEDULER": "tcp://host:8786", left_out: str(file)}
    with pytest.raises(
        EnvironmentInvalid, match=f"{left_out} is set, so FMA_DASK_SCHEDULER must begin with tls"
    ):
        read(DASK | plain)


def test_a_cluster_needs_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentInvalid, match=r"pip install 'federated-model-aggregation\[dask\]'"):
        read(KEY | {"FMA_EXECUTOR": "dask", "FMA_DASK_SCHEDULER": "tcp://host:8786"})


PROVIDER = KEY | {
    "FMA_OIDC_ISSUER": "https://idp.example.org",
    "FMA_OIDC_CLIENT_ID": "fma",
    "FMA_OIDC_CLIENT_SECRET": "hunter2",
}


@pytest.mark.parametrize("name", ["FMA_OIDC_CLIENT_ID", "FMA_OIDC_CLIENT_SECRET"])
def test_a_provider_needs_the_server_to_be_its_client(name: str) -> None:
    assert read(PROVIDER)["FMA_OIDC_SCOPES"] == ["openid", "profile", "email"]
    with pytest.raises(EnvironmentInvalid, match=f"FMA_OIDC_ISSUER is set, so {name} must be set"):
        read(PROVIDER | {name: ""})


def test_a_provider_is_asked_for_openid_with_the_packages_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EnvironmentInvalid, match="FMA_OIDC_SCOPES must have openid"):
        read(PROVIDER | {"FMA_OIDC_SCOPES": "email"})
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentInvalid, match=r"pip install 'federated-model-aggregation\[oidc\]'"):
        read(PROVIDER)


def test_somebody_can_log_in() -> None:
    assert read(PROVIDER | {"FMA_PASSWORD_LOGIN": "false"})["FMA_PASSWORD_LOGIN"] is False
    with pytest.raises(EnvironmentInvalid, match="nobody could log in"):
        read(KEY | {"FMA_PASSWORD_LOGIN": "false"})


def test_variables_that_kubernetes_injects_are_no_settings() -> None:
    """For services called fma and fma-web: what a cluster puts into every container of their namespace."""
    injected = {
        f"{service}_{name}": value
        for service in ("FMA", "FMA_WEB", "FMA_POSTGRES_RW")
        for name, value in {
            "SERVICE_HOST": "10.0.0.11",
            "SERVICE_PORT": "8000",
            "SERVICE_PORT_HTTP": "8000",
            "PORT": "tcp://10.0.0.11:8000",
            "PORT_8000_TCP": "tcp://10.0.0.11:8000",
            "PORT_8000_TCP_PROTO": "tcp",
            "PORT_8000_TCP_PORT": "8000",
            "PORT_8000_TCP_ADDR": "10.0.0.11",
        }.items()
    }

    assert read(KEY | injected) == read(KEY)


@pytest.mark.parametrize("name", ["FMA_PORT", "FMA_WEB_PORT"])
def test_a_port_that_somebody_meant_is_refused(name: str) -> None:
    with pytest.raises(EnvironmentInvalid, match=f"{name} is not a setting of fma"):
        read(KEY | {name: "8000"})
