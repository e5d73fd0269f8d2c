"""An invitation: what a client needs to register, as a file or as a link that somebody made for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from fma_connect.exceptions import InvalidArgument
from fma_core.identity.small_file import read_small_file

__all__ = ["Invitation", "read_invitation"]

FORMAT = 1


@dataclass(frozen=True)
class Invitation:
    """server: its address. models: those that the client may train. token: the secret that registers it."""

    server: str
    models: tuple[int, ...]
    token: str = field(repr=False)

    @property
    def model(self) -> int:
        """The only model. Raises InvalidArgument when there are several."""
        if len(self.models) != 1:
            raise InvalidArgument(
                f"the invitation is for the models {', '.join(map(str, self.models))}: say model=, one of them"
            )
        return self.models[0]


def read_invitation(given: str | os.PathLike[str]) -> Invitation:
    """Read an invitation from a link (`https://…#invitation=…`), or from the file of this name.

    Raises InvalidArgument, whose sentence holds nothing of the token.
    """
    text = os.fspath(given).strip()
    if text.startswith(("https://", "http://")):
        return _of_link(text)
    try:
        return _of_members(json.loads(read_small_file(text)))
    except OSError as error:
        raise InvalidArgument(f"invitation {text} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # Without the cause: its text may quote the file.
        raise InvalidArgument(f"invitation {text} is damaged ({type(error).__name__})") from None


def _of_link(link: str) -> Invitation:
    server, _, fragment = link.partition("#")
    members = parse_qs(fragment)
    try:
        models = [int(model) for model in members["models"][0].split(",")]
        return _of_members(
            {"format": FORMAT, "server": server, "models": models, "token": members["invitation"][0]}
        )
    except (ValueError, KeyError, TypeError):
        raise InvalidArgument(
            "the link of an invitation ends with #invitation=…&models=…; copy all of it"
        ) from None


def _of_members(members: dict[str, Any]) -> Invitation:
    server, models, token = members["server"], members["models"], members["token"]
    if members["format"] != FORMAT:
        raise ValueError(f"format {FORMAT} is the only one known")
    if not (isinstance(server, str) and isinstance(token, str) and models):
        raise TypeError("a member has the wrong type")
    if not all(isinstance(model, int) for model in models):
        raise TypeError("a model is named by its number")
    return Invitation(server, tuple(models), token)
