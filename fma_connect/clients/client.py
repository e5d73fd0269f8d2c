"""The client of an edge device: register once, join a round, pull, train, push, again.

    with Client("https://fma.example.org/", model=3, credential_file="client.json") as client:
        while (joined := client.join()) is not None:
            pulled = client.pull()
            weights, examples = train(pulled.copies(), joined.client_config)
            client.push(weights, num_examples=examples)

In a model in which every client takes part in each round (the default), use `wait_for_next` instead of `join`. A first
update may also be the first weights of a model: `pull` returns None until there are any.
"""

from __future__ import annotations

import logging
import os
import random
import ssl
import threading
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import httpx
import numpy.typing as npt

from fma_connect.clients.connected import Connected
from fma_connect.credential import Credential, CredentialFile
from fma_connect.digest import sha256_of_etag
from fma_connect.encoding import SAFETENSORS, Quantisation, RequestBody, encoded, explained
from fma_connect.exceptions import (
    Conflict,
    CredentialError,
    FMAConnectError,
    InvalidArgument,
    InvalidRequest,
    NotFound,
    UnexpectedAnswer,
)
from fma_connect.invitation import Invitation, read_invitation
from fma_connect.joining import Joined, Joining, NotJoined, answer_of
from fma_connect.key import SIGNATURE, ClientKey, read_certificate_file
from fma_connect.outbox import Facts, Outbox
from fma_connect.outgoing_json import metrics_json, positive_int
from fma_connect.pulled import Arrays, Pulled
from fma_connect.retry import RetryPolicy
from fma_connect.sending import MOST_OF_A_PROMISE, Updates
from fma_connect.telemetry import Telemetry
from fma_connect.transport import Answer, DamagedTransfer, Params, Transport, base_url
from fma_connect.uploads import LEAST_BYTES
from fma_connect.waiting import Waiting
from fma_core.arrays.codecs import safetensors
from fma_core.errors import FMAError
from fma_core.evaluation import Question, Statistics, to_json

__all__ = ["Client"]

logger = logging.getLogger("fma_connect")

NO_MODEL_IN_JSON = b"{}"
LONGEST_WAIT_S = 30
ANSWER_S = 5.0

Measure = Callable[[Arrays, Question], Statistics]

INITIAL = 0  # as a base_aggregate: the initial model


class _LastPulled:
    """The default of base_aggregate: the last result of `pull` or `wait_for_next`, or the joined round's base."""

    def __repr__(self) -> str:
        return "<the last pulled>"


LAST_PULLED: Final = _LastPulled()


class Client(Connected):
    """A client of one model: it registers, joins rounds, pulls the model and pushes updates.

    credential_file: the file with the credential, one for each client. When it is missing, the client registers at its
        first call and writes the file (mode 0600). None keeps the credential in memory: the next start is a new client.
    uuid: an existing credential (of WebClient, say) to use when the file does not exist yet.
    invitation: the file of an invitation, or its link, to register with; it says the url and the model, too.
    enrolment_token, enrolment_jwt: for servers that require one at registration; the JWT is of the operator's identity
        provider, or a function that fetches one.
    organisation: the name of this client's organisation, for servers on which its admin approves clients.
    certificate: the file of the certificate that its organisation has signed for its key.
    telemetry: whether to report facts about the device from time to time (docs/reference/telemetry.md);
        FMA_TELEMETRY=off switches it off.
    keep_unsent: whether an update is kept in a file beside the credential file until the server has confirmed it.
    timeout_s: the limit of one call, all attempts and pauses included, without the time in which bytes move: a large
        model on a slow line takes as long as it takes. retry, verify: see RetryPolicy and httpx.
    http, rng, sleep, clock: for tests.

    Threads may share a client. "The last pulled" is then the last one of any thread, so each should name the
    base_aggregate when it pushes. A forked process must make its own client (the credential file may be the same).
    """

    def __init__(
        self,
        url: str | None = None,
        model: int | None = None,
        *,
        credential_file: str | os.PathLike[str] | None,
        invitation: str | os.PathLike[str] | None = None,
        uuid: str | None = None,
        enrolment_token: str | None = None,
        enrolment_jwt: str | Callable[[], str] | None = None,
        organisation: str | None = None,
        certificate: str | os.PathLike[str] | None = None,
        telemetry: bool = True,
        keep_unsent: bool = True,
        timeout_s: float = 60.0,
        retry: RetryPolicy | None = None,
        verify: bool | ssl.SSLContext = True,
        http: httpx.BaseTransport | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._invitation = None if invitation is None else read_invitation(invitation)
        url, model = _address(url, model, self._invitation)
        self.model = positive_int(model, "model")
        self._file = None if credential_file is None else CredentialFile(credential_file)
        # Read from a file, either may end with a line end.
        self._given_uuid = None if uuid is None else str(uuid).strip()
        self._enrolment_token = None if enrolment_token is None else str(enrolment_token).strip()
        self._enrolment_jwt = enrolment_jwt
        self._organisation = organisation
        self._certificate = None if certificate is None else read_certificate_file(certificate)
        self._may_add_key = True
        self._may_add_key_again = True
        # The key of one registration, however often it is tried.
        self._fresh = Credential.fresh(base_url(url), self.model)
        self._credential: Credential | None = None
        self._pulled: Pulled | None = None
        self._joined: Joined | None = None
        self._lock = threading.Lock()
        self._transport = Transport(
            url, timeout_s=timeout_s, retry=retry or RetryPolicy(), verify=verify, http=http, rng=rng, sleep=sleep,
            clock=clock,
        )  # fmt: skip
        self._keeps_unsent = keep_unsent
        self._updates = Updates(
            self._transport, self._who, self._outbox, self._signature, self._add_key_again
        )
        self._joining = Joining(self._ask_to_join, self._transport)
        self._telemetry = Telemetry(self._transport, self._who, is_on=telemetry)

    def __repr__(self) -> str:
        return f"Client(url={self.url!r}, model={self.model})"

    def register(self) -> str | None:
        """Register, unless the client is registered; return its public id (None if the server does not tell it)."""
        public_id = self._registered().client
        self._catch_up()
        self._telemetry.report_if_due()
        return public_id

    def rotate_credential(self) -> None:
        """Replace the credential by a new one, in the file too.

        The server refuses the former one as soon as the next call has used the new one, and after a day at the latest.
        A client that dies in between completes the rotation at its next start, which must be within that day.
        Call it in one process at a time; others with the same file must be started anew then.
        """
        with self._lock:
            # From the file, which another process may have rotated.
            begun = self._begun() if self._file is not None else self._credential or self._fresh
            if begun.uuid is None:
                begun = self._register_in_time(begun)
            if begun.rotation_key is None:
                begun = replace(begun, rotation_key=str(uuids.uuid4()))
                self._save(begun)
            self._credential = self._with_key(self._rotate(begun))

    def key_request(self) -> dict[str, Any]:
        """The request for a certificate of this client's key, for its organisation; nothing is sent.

        `fma organisation sign` takes it as a file. A client that is not registered yet keeps the key for that.
        """
        with self._lock:
            return _key_of(self._keyed(self._credential or self._begun())).request()

    def describe(self, **facts: Mapping[str, Any]) -> None:
        """Add facts to the reports on this device: `describe(connectivity={"is_unmetered": True})`.

        facts: by section (device, system, resources, connectivity, versions) and field; docs/reference/telemetry.md
        lists them. The next call sends them, and all later reports contain them.
        """
        self._telemetry.describe(facts)

    def report_error(
        self,
        error: BaseException | str,
        message: str = "",
        *,
        round: int | None = None,
        traceback: bool = False,
    ) -> bool:
        """Report an error to the model's owner; return whether the server has stored it. Raises nothing.

        error: a code ("out_of_memory"), or an exception; only the name of its class is sent.
        message: a sentence for people. round: the round's number; None for the last joined one.
        traceback: whether to send the exception's traceback, too; it names files and may contain values.
        """
        if round is None and self._joined is not None:
            round = self._joined.round
        return self._telemetry.report_error(
            error, message, model=self.model, round=round, traceback=traceback
        )

    def join(self, *, timeout_s: float | None = None) -> Joined | None:
        """Join this round or a later one; the client asks again at the times that the server gives.

        Returns None when it could not join within timeout_s, and when the experiment has ended; then `has_ended` is
        true. timeout_s is the limit of all of it: registration, pauses and waiting. The client waits for a server that
        is unavailable for a while, and raises ConnectionFailed if it is still unavailable when the time is over.
        """
        return self._joining.in_time(timeout_s)

    @property
    def has_ended(self) -> bool:
        """Whether the server's last answer to `join` or `join_once` was that the experiment has ended."""
        return self._joining.has_ended

    def join_once(self) -> Joined | NotJoined:
        """Ask once to join the open round; the answer of a refusal has the reason and the time to ask again."""
        return self._joining.once()

    def pull(self) -> Pulled | None:
        """Pull the model's newest weights; None when it has none yet.

        Nothing is transferred while the model has not changed.
        """
        self._catch_up()
        known = self._pulled
        headers = {"If-None-Match": known.etag} if known is not None and known.etag else {}
        pulled = self._keep(self._fetch(headers=headers), known)
        self._telemetry.report_if_due()
        return pulled

    def wait_for_next(self, *, timeout_s: float) -> Pulled | None:
        """Wait for the next aggregate after the last pulled one (before the first pull: any) and pull it.

        Returns None when there is none within timeout_s. Weights that have begun to arrive are read to their end. The
        client waits for an unavailable server, too, and raises ConnectionFailed if it is still unavailable when the
        time is over.
        """
        waiting = Waiting(self._transport, timeout_s=timeout_s, longest_s=LONGEST_WAIT_S)
        after = (self._pulled.base_aggregate if self._pulled is not None else None) or 0
        return waiting.until_news(partial(self._next_after, after))

    def client_config(self) -> dict[str, Any]:
        """The training configuration: the owner's settings and those of the strategy (FedProx's {"mu": …}).

        It is that of the round that this client joined last, or of the open round if it never joined.
        """
        if self._joined is not None:
            return dict(self._joined.client_config)
        params: dict[str, str | int] = {"page_size": 1}
        path = f"api/v1/models/{self.model}/rounds/"
        newest = self._transport.call("GET", path, params=params, headers=self._who()).json()[0]
        config: dict[str, Any] = newest["client_config"]
        return config

    def state(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The strategy's state of a name, stored with the last pulled aggregate, by the names of the model's arrays.

        SCAFFOLD's control variate, for instance, is "aggregator.c". Empty when there is no state yet.
        Raises InvalidArgument for a name that the strategy does not have.
        """
        of = self._pulled.base_aggregate if self._pulled is not None else None
        if of is None:
            return {}
        try:
            answer = self._transport.call(
                "GET",
                f"api/v1/model_aggregates/{of}/state/",
                headers={"Accept": SAFETENSORS, **self._who()},
                check=_check_etag,
            )
        except NotFound:
            return {}
        prefix = f"{name}/"
        arrays = _arrays_of(answer)
        state = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if not state:
            kept = sorted({key.partition("/")[0] for key in arrays if "/" in key})
            raise InvalidArgument(f"there is no state {name!r}; the strategy keeps {', '.join(kept)}")
        return state

    def push(
        self,
        arrays: Arrays,
        *,
        num_examples: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        base_aggregate: int | _LastPulled | None = LAST_PULLED,
        compress: bool = False,
        quantise: Quantisation | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send trained weights; return the stored update.

        num_examples: the number of training examples, which is the weight of this update in a weighted mean.
        metrics: measured in training, up to 64 KiB as JSON; a number that is not finite is sent as null, with a warning
        in the log. base_aggregate: the aggregate that the training started from, or 0 for the initial model; by default
        the last pulled one, or that of the joined round if nothing was pulled.
        quantise: send floating-point arrays as "float16", "bfloat16" or "int8"; the server converts them back.
        "int8_stochastic" is int8 without bias in the mean of many clients.
        compress: send a zstd frame, which is worth it for int8 and for weights with many equal values.
        Raises InvalidRequest, which names the array, when the weights do not fit the model, and before any call when
        they are not valid weights (a NaN, say: status 0, code "non_finite_value"); NotSelected, LateUpdate, RoundFull
        or ExperimentEnded when this update is not (or no longer) wanted.
        timeout_s: the limit of all of it, transfers included; None: the client's timeout_s, which is about silence.
        """
        if num_examples is not None:
            num_examples = positive_int(num_examples, "num_examples")
        if isinstance(base_aggregate, _LastPulled):
            base = self._last_base()
        else:
            base = (
                None
                if base_aggregate is None
                else positive_int(base_aggregate, "base_aggregate", at_least=INITIAL)
            )
        params = {"federated_model": self.model}
        if base is not None:
            params["base_aggregate"] = base
        if num_examples is not None:
            params["num_examples"] = num_examples
        facts = Facts(params, None if metrics is None else _plain_metrics(metrics))
        body = encoded(arrays, compress=compress, quantise=quantise)
        with self._transport.within(timeout_s):
            self._updates.catch_up(least_bytes=LEAST_BYTES, next_one=(body, facts))
            try:
                answer = self._updates.push(body, facts, least_bytes=LEAST_BYTES)
            except InvalidRequest as refused:
                raise explained(refused, compress=compress) from None
            update: dict[str, Any] = answer.json()
            logger.info(
                "update_pushed model=%d update=%s base_aggregate=%s bytes=%d",
                self.model,
                update.get("id"),
                base,
                body.size_bytes,
            )
            self._telemetry.report_if_due()
            return update

    def send_kept(self) -> dict[str, Any] | None:
        """Send the update that a push could not, and return it as stored; None when there is none.

        `register`, `join`, `pull`, `wait_for_next` and `push` do this by themselves. Raises as `push`.
        """
        answer = self._updates.send_kept(least_bytes=LEAST_BYTES)
        if answer is None:
            return None
        update: dict[str, Any] = answer.json()
        return update

    def report_scores(
        self, results: Any, *, aggregate: int | _LastPulled | None = LAST_PULLED
    ) -> dict[str, Any]:
        """Send this client's validation results (JSON) for an aggregate, once each; return them as stored."""
        of = aggregate
        if isinstance(of, _LastPulled):
            of = self._pulled.base_aggregate if self._pulled is not None else None
        if of is None:
            raise InvalidArgument("scores belong to an aggregate: pull one first, or name it with aggregate=")
        credential = self._registered()
        score = {
            "aggregate": of,
            "client": credential.client or credential.uuid,
            "validation_results": metrics_json(results, where="results"),
        }
        answer = self._transport.call(
            "POST", "api/v1/client_aggregate_scores/", headers=self._who(), json_body=score
        )
        stored: dict[str, Any] = answer.json()
        return stored

    def evaluations(self, *, wait_s: int = 0) -> list[dict[str, Any]]:
        """The evaluations of the model that wait for this client, oldest first.

        wait_s: the seconds to wait for one; an empty list when none has come. The call takes at most ANSWER_S more.
        """
        if wait_s <= 0:
            return self._evaluations(None)
        waiting = Waiting(self._transport, timeout_s=wait_s, longest_s=wait_s, grace_s=ANSWER_S)
        return waiting.until_news(lambda left_s: self._evaluations(left_s) or None) or []

    def _evaluations(self, wait_s: float | None) -> list[dict[str, Any]]:
        params: dict[str, str | int] = {"federated_model": self.model, "page_size": 200}
        answer = self._transport.call(
            "GET", "api/v1/evaluations/", params=params, headers=self._who(), wait_s=wait_s
        )
        waiting: list[dict[str, Any]] = answer.json()
        return waiting

    def evaluate(self, evaluation: Mapping[str, Any], measure: Measure) -> dict[str, Any]:
        """Evaluate the weights of one of `evaluations()` on this client's own examples, and report the statistics.

        measure: called with the weights and the question; returns `statistics_of(question, y_true=…, y_pred=…)`.
        """
        answer = self._transport.call(
            "GET",
            f"api/v1/evaluations/{evaluation['id']}/model/",
            headers={"Accept": SAFETENSORS, **self._who()},
            check=_check_etag,
        )
        question = Question.from_json(evaluation["question"])
        return self.report_evaluation(evaluation["id"], measure(_arrays_of(answer), question))

    def report_evaluation(self, evaluation: int, statistics: Statistics) -> dict[str, Any]:
        """Send this client's statistics, once; return them as stored. Sending the same again changes nothing."""
        answer = self._transport.call(
            "POST",
            f"api/v1/evaluations/{evaluation}/results/",
            headers=self._who(),
            json_body={"statistics": to_json(statistics)},
        )
        stored: dict[str, Any] = answer.json()
        return stored

    def me(self) -> dict[str, Any]:
        """The server's view of this client: its identity and permissions."""
        caller: dict[str, Any] = self._transport.call("GET", "api/v1/me/", headers=self._who()).json()
        return caller

    def _ask_to_join(self, wait_s: float | None) -> Joined | NotJoined:
        self._catch_up()
        # Report first, so that the selection knows the current facts about this device.
        self._telemetry.report_if_due()
        answer = answer_of(
            self._transport.call(
                "POST", f"api/v1/models/{self.model}/join/", headers=self._who(), wait_s=wait_s
            ).json()
        )
        if isinstance(answer, Joined):
            self._joined = answer
            logger.info("round_joined model=%d round=%d", self.model, answer.round)
        return answer

    def _catch_up(self) -> None:
        self._updates.catch_up(least_bytes=LEAST_BYTES)

    def _outbox(self) -> Outbox | None:
        if self._file is None or not self._keeps_unsent:
            return None
        with self._lock:
            begun = self._credential or self._begun()
        path = self._file.path
        return Outbox(
            path.with_name(f"{path.name}.update"), f"{begun.server} {begun.model} {begun.registration_key}"
        )

    def _last_base(self) -> int | None:
        known = self._pulled or self._joined
        return None if known is None else known.base_aggregate or INITIAL

    def _next_after(self, after: int, wait_s: float) -> Pulled | None:
        self._catch_up()
        answer = self._fetch(params={"after": after}, wait_s=wait_s)
        self._telemetry.report_if_due()
        if (_aggregate_of(answer) or 0) <= after:
            return None  # also from a server that does not know `after`
        return self._keep(answer, None)

    def _fetch(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        wait_s: float | None = None,
    ) -> Answer:
        return self._transport.call(
            "GET",
            f"api/v1/models/{self.model}/get_latest_model/",
            params=params,
            headers={"Accept": SAFETENSORS, **self._who(), **(headers or {})},
            wait_s=wait_s,
            check=_check_etag,
        )

    def _keep(self, answer: Answer, known: Pulled | None) -> Pulled | None:
        if answer.status == httpx.codes.NOT_MODIFIED:
            if known is None:
                raise UnexpectedAnswer("the server answered 304 to a call without If-None-Match")
            # A newer aggregate can have the same bytes.
            newest = known.base_aggregate if _aggregate_of(answer) is None else _aggregate_of(answer)
            pulled = known if newest == known.base_aggregate else replace(known, base_aggregate=newest)
        elif answer.status == httpx.codes.NO_CONTENT or answer.body == NO_MODEL_IN_JSON:
            return None
        else:
            pulled = Pulled(_arrays_of(answer), _aggregate_of(answer), answer.headers.get("etag"))
        self._pulled = pulled
        return pulled

    def _who(self) -> dict[str, str]:
        return {"CLIENT-UUID": self._registered().uuid or ""}

    def _registered(self) -> Credential:
        with self._lock:
            if self._credential is None:
                begun = self._begun()
                if begun.uuid is None:
                    begun = self._register_in_time(begun)
                # The server refuses the present credential a day after a rotation that was not completed.
                self._credential = self._with_key(
                    begun if begun.rotation_key is None else self._rotate(begun)
                )
            return self._credential

    def _begun(self) -> Credential:
        if self._file is None:
            return self._fresh
        credential = self._file.load() or self._file.begin(self._fresh)
        if (credential.server, credential.model) != (self.url, self.model):
            raise CredentialError(
                f"credential file {self._file.path} is for model {credential.model} of {credential.server}, not for "
                f"model {self.model} of {self.url}; give each its own file"
            )
        return credential

    def _register_in_time(self, begun: Credential) -> Credential:
        try:
            return self._register(begun)
        except Conflict as conflict:
            if conflict.code != "idempotency_key_expired":
                raise
            # The registration is so old that the server has forgotten its key: nobody can complete it.
            self._fresh = Credential.fresh(self.url, self.model)
            return self._register(self._fresh)

    def _rotate(self, begun: Credential) -> Credential:
        """Get the next credential, and save it before anything uses it."""
        answer = self._transport.call(
            "POST",
            "api/v1/clients/me/credential/",
            headers={"CLIENT-UUID": begun.uuid or ""},
            idempotency_key=begun.rotation_key,
        ).json()
        if not isinstance(answer, dict) or not isinstance(answer.get("uuid"), str):
            raise UnexpectedAnswer("the server answered a rotation without a credential")
        rotated = replace(begun, uuid=answer["uuid"], rotation_key=None)
        self._save(rotated)
        logger.info("credential_rotated model=%d client=%s", self.model, rotated.client)
        return rotated

    def _with_key(self, credential: Credential) -> Credential:
        """The credential with its key known to the server, if the server takes it: else updates are not signed."""
        is_complete = credential.is_key_registered and self._certificate is None
        if is_complete or not self._may_add_key:
            return credential
        try:
            with self._transport.within_share(MOST_OF_A_PROMISE), self._transport.without_retries():
                return self._add_key(self._keyed(credential))
        except FMAConnectError as error:
            if self._certificate is not None:
                raise
            logger.warning("key_not_registered model=%d cause=%s", self.model, error)
            return credential

    def _keyed(self, credential: Credential) -> Credential:
        """The credential with a private key, in the file too."""
        if credential.private_key is not None:
            return credential

        def add(present: Credential) -> Credential:
            made = credential if self._file is None else present
            return (
                made if made.private_key is not None else replace(made, private_key=self._fresh.private_key)
            )

        return add(credential) if self._file is None else self._file.update(add)

    def _add_key(self, credential: Credential) -> Credential:
        client = credential.client
        who = {"CLIENT-UUID": credential.uuid or ""}
        if client is None:
            client = str(self._transport.call("GET", "api/v1/me/", headers=who).json()["id"])
        body = _key_of(credential).of_client(client, server=self.url)
        if self._certificate is not None:
            body["certificate"] = self._certificate
        self._transport.call("POST", "api/v1/clients/me/key/", headers=who, json_body=body)
        known = replace(credential, client=client, is_key_registered=True)
        if known != credential:
            self._save(known)
            logger.info("key_registered model=%d client=%s", self.model, client)
        return known

    def _signature(self, body: RequestBody, facts: Facts) -> dict[str, str]:
        credential = self._registered()
        if not credential.is_key_registered or credential.client is None:
            return {}
        return {SIGNATURE: _key_of(credential).signature(credential.client, body, facts)}

    def _add_key_again(self) -> bool:
        """Add the key, once, that the server knew before; whether it has taken it. Raises as Transport.call."""
        with self._lock:
            credential = self._credential
            if credential is None or not credential.is_key_registered or not self._may_add_key_again:
                return False
            is_added = True
            try:
                self._add_key(credential)
            except Conflict as conflict:
                logger.warning("key_not_registered model=%d cause=%s", self.model, conflict)
                is_added = False
            self._may_add_key_again = False
            return is_added

    def _save(self, credential: Credential) -> None:
        if self._file is not None:
            self._file.save(credential)

    def _register(self, begun: Credential) -> Credential:
        headers = {}
        if self._given_uuid is not None:
            headers["CLIENT-UUID"] = self._given_uuid
        if self._enrolment_token is not None:
            headers["FMA-Enrolment-Token"] = self._enrolment_token
        if self._invitation is not None:
            headers["FMA-Invitation"] = self._invitation.token
        if self._enrolment_jwt is not None:
            jwt = self._enrolment_jwt() if callable(self._enrolment_jwt) else self._enrolment_jwt
            headers["Authorization"] = f"Bearer {jwt.strip()}"
        try:
            answer = self._ask_to_register(begun, headers)
        except Conflict as conflict:
            # Another file has the key of this credential, which the caller gave.
            if conflict.code != "client_has_key" or self._given_uuid is None:
                raise
            logger.warning("key_not_registered model=%d cause=%s", self.model, conflict)
            answer = self._ask_to_register(replace(begun, private_key=None), headers)
        if not isinstance(answer, dict) or not isinstance(answer.get("uuid"), str):
            raise UnexpectedAnswer("the server answered a registration without a credential")
        public_id = answer.get("id")
        # Whatever it said of this key, to ask again would be answered in the same way.
        self._may_add_key = False
        registered = replace(
            begun,
            uuid=answer["uuid"],
            client=None if public_id is None else str(public_id),
            is_key_registered=begun.key is not None and answer.get("public_key") == begun.key.public_key,
        )
        self._save(registered)
        logger.info("client_registered model=%d client=%s", self.model, registered.client)
        return registered

    def _ask_to_register(self, begun: Credential, headers: Mapping[str, str]) -> Any:
        body = {}
        if begun.key is not None:
            body = begun.key.at_registration(begun.registration_key, server=self.url)
        if self._organisation is not None:
            body["organisation"] = self._organisation
        if body and self._certificate is not None:
            body["certificate"] = self._certificate
        return self._transport.call(
            "POST",
            f"api/v1/models/{self.model}/register_client/",
            headers=headers,
            json_body=body or None,
            idempotency_key=begun.registration_key,
        ).json()


def _key_of(credential: Credential) -> ClientKey:
    if credential.key is None:
        raise CredentialError("the client has no private key")
    return credential.key


def _address(url: str | None, model: int | None, invitation: Invitation | None) -> tuple[str, int]:
    """The server and the model, which an invitation says where the caller does not."""
    if invitation is not None:
        url = invitation.server if url is None else url
        model = invitation.model if model is None else model
    if url is None:
        raise InvalidArgument("url must be given, or an invitation, which has it")
    if model is None:
        raise InvalidArgument("model must be given, or an invitation, which has it")
    return url, model


def _plain_metrics(metrics: Any) -> dict[str, Any]:
    plain = metrics_json(metrics)
    if not isinstance(plain, dict):
        raise InvalidArgument(
            f"metrics must be a mapping of names to numbers; got a {type(metrics).__name__}"
        )
    return plain


def _aggregate_of(answer: Answer) -> int | None:
    value = answer.headers.get("fma-aggregate", "")
    if not value:
        return None
    if not value.isdecimal():
        raise UnexpectedAnswer(f"FMA-Aggregate must be a number, got {value!r}")
    return int(value)


def _check_etag(answer: Answer) -> None:
    promised = sha256_of_etag(answer.headers.get("etag"))
    if answer.status != httpx.codes.OK or promised is None or "content-encoding" in answer.headers:
        return
    if answer.sha256 != promised:
        raise DamagedTransfer("the weights do not match their ETag")


def _arrays_of(answer: Answer) -> Arrays:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind != SAFETENSORS:
        raise UnexpectedAnswer(
            f"the server answered the weights as {kind or 'nothing'}; {SAFETENSORS} was expected"
        )
    try:
        return safetensors.decode(answer.body)
    except FMAError as error:
        raise UnexpectedAnswer(f"the weights cannot be read: {error}") from error
