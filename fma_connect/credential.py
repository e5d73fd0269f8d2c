"""A client's credential, in a file that only its owner can read.

The file is written twice: before the registration, with its idempotency key, and after it, with the credential. A
client that dies in between registers again with the same key and gets the same credential, and two processes that
start together with one file become one client. A rotation writes it twice in the same way: before it, with an
idempotency key, and after it, with the next credential. The client's private key is made with the file and stays in it.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fma_connect.exceptions import CredentialError
from fma_connect.key import ClientKey
from fma_core.identity.keys import KEY, new_private_key
from fma_core.identity.small_file import MOST_BYTES, bounded

try:
    import fcntl
except ImportError:  # Windows: of two processes that add a key at once, the last one wins
    fcntl = None  # type: ignore[assignment]

__all__ = ["Credential", "CredentialFile"]

FORMAT = 1
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Credential:
    """The identity of a client for one model of one server.

    registration_key: the Idempotency-Key of its registration, as secret as the credential itself.
    uuid: the credential; None until the server has answered. client: its public id.
    rotation_key: the Idempotency-Key of a rotation that has begun; the file has it only until the next credential.
    private_key: the client's Ed25519 key, in hexadecimal digits; None in a file of a version that had none.
    is_key_registered: whether the server has said that it knows the public key.
    """

    server: str
    model: int
    registration_key: str = field(repr=False, default_factory=lambda: str(uuid.uuid4()))
    uuid: str | None = field(repr=False, default=None)
    client: str | None = None
    rotation_key: str | None = field(repr=False, default=None)
    private_key: str | None = field(repr=False, default=None)
    is_key_registered: bool = False

    @classmethod
    def fresh(cls, server: str, model: int) -> Credential:
        """One of a client that is about to register, with a new key."""
        return cls(server, model, private_key=new_private_key().hex())

    @property
    def key(self) -> ClientKey | None:
        return None if self.private_key is None else ClientKey(self.private_key)

    def as_members(self) -> dict[str, Any]:
        """The members of the file, without those that say nothing yet."""
        members = asdict(self)
        for name in ("rotation_key", "private_key", "is_key_registered"):
            if not members[name]:
                del members[name]
        return members


class CredentialFile:
    """One credential on disk: mode 0600, replaced atomically, its folder created when missing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> Credential | None:
        """Read the credential; None without a file. Raises CredentialError for a file that must not be trusted."""
        try:
            with self.path.open("rb") as file:
                self._refuse_if_open_to_others(os.fstat(file.fileno()))
                content = bounded(file.read(MOST_BYTES + 1), self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialError(f"credential file {self.path} cannot be read: {error.strerror}") from error
        return self._parse(content)

    def save(self, credential: Credential) -> None:
        """Replace the file atomically: a reader sees the old or the new credential."""
        os.replace(self._write_beside(credential), self.path)
        self._sync_folder()

    def begin(self, credential: Credential) -> Credential:
        """Write a new credential, unless another process was first; return the one in the file."""
        written = self._write_beside(credential)
        try:
            # A link fails if the name exists, so only the first process succeeds.
            os.link(written, self.path)
        except FileExistsError:
            return self.load() or credential
        except OSError:
            # No hard links here (FAT, some network folders): the last process wins.
            os.replace(written, self.path)
        finally:
            with suppress(FileNotFoundError):
                Path(written).unlink()
        self._sync_folder()
        return credential

    def update(self, change: Callable[[Credential], Credential]) -> Credential:
        """Change the credential in the file, one process after the other; return it as it is then."""
        with self._locked():
            present = self.load()
            if present is None:
                raise CredentialError(f"credential file {self.path} is gone; restore it, or register anew")
            changed = change(present)
            self.save(changed)
        return changed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            if fcntl is not None:
                # The folder, since the file is replaced; a lock file would stay behind.
                handle = os.open(self.path.parent, os.O_RDONLY)
                stack.callback(os.close, handle)
                with suppress(OSError):  # a file system without locks: the last process wins
                    fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _write_beside(self, credential: Credential) -> str:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, written = tempfile.mkstemp(
                prefix=f".{self.path.name}.", dir=folder
            )  # created with mode 0600
            with open(handle, "w", encoding="utf-8") as file:
                json.dump({"format": FORMAT, **credential.as_members()}, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CredentialError(
                f"credential file {self.path} cannot be written: {error.strerror}"
            ) from error
        return written

    def _sync_folder(self) -> None:
        if os.name != "posix":
            return
        handle = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _refuse_if_open_to_others(self, stats: os.stat_result) -> None:
        if os.name == "posix" and stats.st_mode & _OPEN_TO_OTHERS:
            raise CredentialError(
                f"credential file {self.path} has mode {stat.S_IMODE(stats.st_mode):04o}; other users must have no "
                f"access to it: chmod 600 {self.path} (and register anew if somebody may have read it)"
            )

    def _parse(self, content: bytes) -> Credential:
        try:
            members: dict[str, Any] = json.loads(content)
            if members.pop("format") != FORMAT:
                raise ValueError(f"format {FORMAT} is the only one known")
            if isinstance(members.get("model"), str) and members["model"].isdecimal():
                # Version 0.1.0 wrote the model as it was given, Client(url, "3") as a text.
                members["model"] = int(members["model"])
            credential = Credential(**members)
            texts = (
                credential.server,
                credential.registration_key,
                credential.uuid or "",
                credential.client or "",
                credential.rotation_key or "",
            )
            if not (isinstance(credential.model, int) and all(isinstance(text, str) for text in texts)):
                raise TypeError("a member has the wrong type")
            if credential.private_key is not None and not KEY.fullmatch(credential.private_key):
                raise ValueError("a private key has 64 hexadecimal digits")
            if not isinstance(credential.is_key_registered, bool):
                raise TypeError("a member has the wrong type")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Without the cause: its text may quote the file.
            raise CredentialError(
                f"credential file {self.path} is damaged ({type(error).__name__}); restore it, or remove it to "
                "register as a new client"
            ) from None
        return credential
