"""A cluster of two worker processes for each file, and a bucket that the workers know.

It ends with the file: left alone, its three processes take a seventh of a core to the end of the run.
"""

from collections.abc import Iterator

import pytest

from tests.dask.rules import FOLDER
from tests.servers.dask import DaskCluster
from tests.servers.s3 import S3Bucket, S3Server


@pytest.fixture(scope="session")
def bucket(s3_server: S3Server) -> S3Bucket:
    return s3_server.new_bucket()


@pytest.fixture(scope="module")
def cluster(bucket: S3Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    folder = tmp_path_factory.mktemp("dask")
    spool = folder / "spool"
    env = bucket.environment | {"FMA_SPOOL_DIR": str(spool), FOLDER: str(folder)}
    with DaskCluster(folder, env) as started:
        started.start_workers(2)
        yield started
