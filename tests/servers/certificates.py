"""Certificates of a test's own, made by the `openssl` command.

authority = Authority(folder, "our own")
tls = authority.issue("server")
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.missing import missing


class Authority:
    """Whoever signs certificates; `certificate` is the file that others trust it by."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            missing("openssl is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        # Python 3.13 wants both (VERIFY_X509_STRICT; RFC 5280, 4.2.1.3).
        extensions = [
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]
        self._make(self.certificate, self._key, name, *extensions)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for this machine under this name, and its key."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        signed = ["-CA", str(self.certificate), "-CAkey", str(self._key)]
        alternative = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        self._make(certificate, key, name, *signed, *alternative, "-addext", "basicConstraints=CA:FALSE")
        return certificate, key

    def _make(self, certificate: Path, key: Path, name: str, *options: str) -> None:
        new = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ]
        files = ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}", "-days", "2"]
        done = subprocess.run([*new, *files, *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
