"""A cluster that speaks TLS: a real server folds a round on it, and nobody else gets in."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fma_connect import Client, DeveloperClient
from fma_django import conf
from fma_django.dask import executor as dask_executor_module
from fma_django.dask.executor import TlsFiles, dask_executor
from fma_django.errors import ClusterUnavailable
from tests.servers.certificates import Authority
from tests.servers.dask import DaskCluster
from tests.servers.fma import StartFma

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

LIMIT_S = 60


def files_of(authority: Authority, name: str) -> TlsFiles:
    return TlsFiles(authority.certificate, *authority.issue(name))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return files_of(Authority(tmp_path_factory.mktemp("ours"), "ours"), "machine")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Good certificates of an authority that the cluster does not know."""
    return files_of(Authority(tmp_path_factory.mktemp("theirs"), "theirs"), "stranger")


@pytest.fixture(scope="module")
def closed_cluster(tls: TlsFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), tls=tls) as cluster:
        cluster.start_workers(1)
        yield cluster


def environment(cluster: DaskCluster, tls: TlsFiles) -> dict[str, str]:
    return {
        "FMA_EXECUTOR": "dask",
        "FMA_DASK_SCHEDULER": cluster.address,
        "FMA_DASK_TLS_CA": str(tls.ca),
        "FMA_DASK_TLS_CERTIFICATE": str(tls.certificate),
        "FMA_DASK_TLS_KEY": str(tls.key),
    }


def test_a_server_folds_a_round_over_tls(
    closed_cluster: DaskCluster, tls: TlsFiles, fma_server: StartFma, tmp_path: Path
) -> None:
    assert closed_cluster.address.startswith("tls://")
    server = fma_server(env=environment(closed_cluster, tls))
    anna = DeveloperClient(server.base_url, token=server.install.add_user("anna").token)
    model = anna.create_model("over tls", requirement="require_x_updates", requirement_args=[2])["id"]
    for name, value in (("a", 1.0), ("b", 3.0)):
        with Client(server.base_url, model, credential_file=tmp_path / name) as client:
            client.push({"w": np.full(1000, value)}, num_examples=1)
            pulled = client.wait_for_next(timeout_s=LIMIT_S) if name == "b" else None

    assert pulled is not None
    assert pulled.arrays["w"].tolist() == [2.0] * 1000
    server.install.change_env({"FMA_EXECUTOR": "threads"} | dict.fromkeys(conf.DASK_TLS))
    assert "equal: " in server.install.run("verify", str(model))


@pytest.mark.parametrize("address", ["tcp", "tls"])
def test_a_worker_that_does_not_show_a_certificate_is_refused(
    closed_cluster: DaskCluster, strangers: TlsFiles, address: str
) -> None:
    files = (
        []
        if address == "tcp"
        else [
            *("--tls-ca-file", str(strangers.ca)),
            *("--tls-cert", str(strangers.certificate)),
            *("--tls-key", str(strangers.key)),
        ]
    )
    scheduler = closed_cluster.address.replace("tls://", f"{address}://")

    worker = closed_cluster.start_worker(scheduler, *files, "--death-timeout", "8")

    worker.wait(limit_s=LIMIT_S)
    first = closed_cluster.workers[0]
    assert ("Registered to" in first.log_text(), first.exit_code) == (True, None)
    assert "Registered to" not in worker.log_text()


@pytest.mark.parametrize("kind", ["none", "of strangers", "without a key"])
def test_a_server_without_its_certificate_is_refused_in_time(
    closed_cluster: DaskCluster,
    tls: TlsFiles,
    strangers: TlsFiles,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_executor_module, "CONNECT_LIMIT_S", 3)
    given = {
        "none": None,
        "of strangers": strangers,
        "without a key": replace(tls, key=tls.key.with_name("nowhere.key")),
    }[kind]
    address = closed_cluster.address.replace("tls://", "tcp://") if given is None else closed_cluster.address
    before = threading.active_count()

    with (
        pytest.raises(ClusterUnavailable, match="cannot be reached"),
        dask_executor(address, tls=given, remote=None, check=lambda: None),
    ):
        pass

    assert threading.active_count() <= before + 2
