"""Limits of requests: no more in a time than a caller, an address or an account may, also when all come at once."""

import hashlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from threading import BoundedSemaphore
from typing import ClassVar

from django.http import HttpRequest
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from fma_api.sender_address import network_of, sender_address
from fma_api.v1.callers import client_of
from fma_django import conf, rates
from fma_django.rates import Cost

AT_ONCE = 2
PATIENCE_S = 5.0
_CHECKING = BoundedSemaphore(AT_ONCE)
"""A password takes half a second of a core to check: more at once would only keep everybody else from one."""


class PerHour(BaseThrottle):
    """At most `most` requests of a client in an hour; as many may come at once."""

    name: ClassVar[str]
    most: ClassVar[int]
    wait_s: float = 0.0

    def allow_request(self, request: Request, view: object) -> bool:
        client = client_of(request)
        if client is None:
            return True
        self.wait_s, _ = rates.take([Cost(f"{self.name}:{client.pk}", 3600 / self.most, 3600)])
        return self.wait_s <= 0

    def wait(self) -> float:
        return self.wait_s


class Guesses:
    """The guesses of a secret by one address, and of one account's password, against FMA_LOGIN_RATE.

    An address of IPv6 stands for its network, all of which one sender has.
    of: the kind of secret; all ways to log in share that of passwords. account_rate: for one account, where it is
    another one. Each guess is counted before it is looked at, so
    that guesses that come together count, too; a right one is given back.
    """

    def __init__(
        self,
        request: Request | HttpRequest,
        *,
        of: str = "passwords",
        account: object = None,
        account_rate: tuple[int, int] | None = None,
    ) -> None:
        number, period_s = conf.current().login_rate
        address = network_of(sender_address(request.META))
        self._costs = [Cost(f"guess:{of}:address:{address}", period_s / number, period_s)]
        if account is not None:
            number, period_s = account_rate or (number, period_s)
            self._costs.append(Cost(f"guess:{of}:account:{_key_of(account)}", period_s / number, period_s))

    def count(self) -> None:
        """Raises Throttled."""
        wait_s, _ = rates.take(self._costs)
        if wait_s > 0:
            raise Throttled(wait=ceil(wait_s))

    def give_back(self) -> None:
        """The secret was right: take away what was counted."""
        rates.take([cost.given_back() for cost in self._costs])


def count_registration(request: Request) -> None:
    """Count a new client of one address, or network of IPv6, against FMA_REGISTRATION_RATE. Raises Throttled."""
    number, period_s = conf.current().registration_rate
    address = network_of(sender_address(request.META))
    wait_s, _ = rates.take([Cost(f"registration:{address}", period_s / number, period_s)])
    if wait_s > 0:
        raise Throttled(wait=ceil(wait_s))


def _key_of(account: object) -> str:
    """One key for all spellings that forms, or the API, take for one name: a number, blanks around it, wide letters.

    A hash, since the name is as long as anybody sends it.
    """
    name = unicodedata.normalize("NFKC", str(account)).strip().casefold()
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def checking_a_password() -> Iterator[None]:
    """Let a few passwords be checked at once. Raises Throttled when it takes too long to get there."""
    if not _CHECKING.acquire(timeout=PATIENCE_S):
        raise Throttled(wait=1)
    try:
        yield
    finally:
        _CHECKING.release()
