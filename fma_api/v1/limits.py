"""Limits of requests: no more in a time than a caller, an address or an account may, also when all come at once."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil
from threading import Condition
from typing import ClassVar

from django.http import HttpRequest
from rest_framework.exceptions import ErrorDetail, Throttled
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from fma_api.sender_address import network_of, sender_address
from fma_api.v1.callers import client_of
from fma_django import conf, rates
from fma_django.rates import Cost

AT_ONCE = 2
"""A password takes half a second of a core to check: more at once would only keep everybody else from one."""
PLACES = 4
"""So many threads check a password or wait to do so; the others serve other requests meanwhile."""
PLACES_PER_ADDRESS = 2
PATIENCE_S = 5.0


class PasswordPlaces:
    """The threads that check passwords: one of an address at a time, while a second one of it may wait."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside: Counter[str] = Counter()
        self._checking: set[str] = set()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Raises Throttled when there is no place, or a turn takes too long."""
        with self._changed:
            if self._inside[address] >= PLACES_PER_ADDRESS or self._inside.total() >= PLACES:
                raise _busy()
            self._inside[address] += 1
        try:
            with self._changed:
                if not self._changed.wait_for(lambda: self._is_turn_of(address), PATIENCE_S):
                    raise _busy()
                self._checking.add(address)
            try:
                yield
            finally:
                with self._changed:
                    self._checking.remove(address)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._inside[address] -= 1
                self._inside += Counter()  # forget addresses that have none

    def _is_turn_of(self, address: str) -> bool:
        return address not in self._checking and len(self._checking) < AT_ONCE


password_places = PasswordPlaces()


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


COUNTED = {
    "passwords": "wrong passwords",
    "codes": "wrong codes",
    "enrolment tokens": "wrong enrolment tokens or JWTs",
    "oidc": "logins that were not completed",
}


class TooManyGuesses(Throttled):
    """A guess beyond a limit. cause: of what there were too many."""

    wait: int

    def __init__(self, cause: str, wait_s: float) -> None:
        super().__init__(wait=ceil(wait_s))
        ends_on = datetime.now(UTC) + timedelta(seconds=ceil(wait_s))
        self.detail = ErrorDetail(
            f"Too many {cause}; try again in {self.wait} seconds, at {ends_on:%Y-%m-%d %H:%M:%S} UTC.",
            code=self.default_code,
        )


class Guesses:
    """The guesses of a secret by one address, and of one account's password, against FMA_LOGIN_RATE.

    An address of IPv6 stands for its network, all of which one sender has.
    of: the kind of secret, one of COUNTED; all ways to log in share that of passwords. account_rates: for one account,
    where they are others; all of them hold. Each guess is counted before it is looked at, so that guesses that come
    together count, too; a right one is given back.
    """

    def __init__(
        self,
        request: Request | HttpRequest,
        *,
        of: str = "passwords",
        account: object = None,
        account_rates: Sequence[tuple[int, int]] = (),
    ) -> None:
        number, period_s = conf.current().login_rate
        self._address = network_of(sender_address(request.META))
        of_address = Cost(f"guess:{of}:address:{self._address}", period_s / number, period_s)
        self._costs, self._causes = [of_address], {of_address.key: f"{COUNTED[of]} from this address"}
        if account is None:
            return
        for most, in_s in account_rates or ((number, period_s),):
            key = f"guess:{of}:account:{_key_of(account)}:{in_s}"
            self._costs.append(Cost(key, in_s / most, in_s))
            self._causes[key] = f"{COUNTED[of]} for this account"

    def count(self) -> None:
        """Raises TooManyGuesses."""
        wait_s, key = rates.take(self._costs)
        if wait_s > 0:
            raise TooManyGuesses(self._causes[key], wait_s)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Check a password in this block. Raises Throttled.

        A thread that waits serves nobody: sixteen guesses at once kept all threads of a process from everybody else for
        four seconds.
        """
        with password_places.place(self._address):
            yield

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


def _busy() -> Throttled:
    return Throttled(wait=1, detail="The server checks as many passwords as it can now.")


def _key_of(account: object) -> str:
    """One key for all spellings that forms, or the API, take for one name: a number, blanks around it, wide letters.

    A hash, since the name is as long as anybody sends it.
    """
    name = unicodedata.normalize("NFKC", str(account)).strip().casefold()
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
