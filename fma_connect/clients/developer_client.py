"""The client for developers: create, watch, publish and download models.

    with DeveloperClient("https://fma.example.org/", token="...") as fma:
        model = fma.create_model("digits", requirement="require_x_updates", requirement_args=[5])
        fma.set_initial_model(model["id"], weights)
        for round_ in fma.watch(model["id"], timeout_s=3600):
            print(round_["number"], round_["state"])

Methods return objects as dictionaries, as the API gives them; lists are newest first and contain all pages.
"""

from __future__ import annotations

import os
import random
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from fma_connect.clients.connected import Connected
from fma_connect.download import download
from fma_connect.encoding import SAFETENSORS, encoded
from fma_connect.exceptions import InvalidArgument, NotAllowed, UnexpectedAnswer
from fma_connect.outbox import Facts
from fma_connect.outgoing_json import dumps
from fma_connect.pulled import Arrays
from fma_connect.retry import RetryPolicy
from fma_connect.transport import Transport
from fma_connect.uploads import LEAST_BYTES, Uploads
from fma_connect.watching import finished_rounds
from fma_core.evaluation import Question

__all__ = ["DeveloperClient"]

PAGE_SIZE = 100

Json = dict[str, Any]


class DeveloperClient(Connected):
    """A client for developers, who create models, watch their rounds and publish aggregates.

    Give either token, or username and password (exchanged for a token at the first call, and not kept after it); a user
    with a second factor gives its code, too.
    timeout_s: the limit of one call, all attempts and pauses included, without the time in which bytes move.
    retry, verify: see RetryPolicy and httpx. http, rng, sleep, clock: for tests. Threads may share a client.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        code: str | None = None,
        timeout_s: float = 60.0,
        retry: RetryPolicy | None = None,
        verify: bool | ssl.SSLContext = True,
        http: httpx.BaseTransport | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        has_login = username is not None and password is not None
        if (token is None) != has_login or (token is not None and (username or password or code)):
            raise InvalidArgument("give either token=, or both username= and password=")
        # Read from a file, a token may end with a line end.
        self._token = None if token is None else str(token).strip()
        second_factor = {} if code is None else {"code": code}
        self._login = {"username": username, "password": password, **second_factor} if has_login else None
        self._lock = threading.Lock()
        self._transport = Transport(
            url, timeout_s=timeout_s, retry=retry or RetryPolicy(), verify=verify, http=http, rng=rng, sleep=sleep,
            clock=clock,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"DeveloperClient(url={self.url!r})"

    def me(self) -> Json:
        """The server's view of this developer: identity and permissions."""
        return self._get("me/")

    def create_model(
        self,
        name: str,
        *,
        aggregator: str = "mean",
        aggregator_params: Mapping[str, Any] | None = None,
        stages: Sequence[Mapping[str, Any]] | None = None,
        optimiser: Mapping[str, Any] | None = None,
        update_kind: str | None = None,
        staleness: Mapping[str, Any] | None = None,
        array_policies: Mapping[str, str] | None = None,
        requirement: str | None = None,
        requirement_args: Sequence[Any] | None = None,
        allow_aggregation: bool = True,
        furthest_base_agg: int | None = None,
        round_policy: Mapping[str, Any] | None = None,
        selector: Mapping[str, Any] | None = None,
        eligibility: Sequence[Mapping[str, Any]] | None = None,
        seed: int | None = None,
        client_config: Mapping[str, Any] | None = None,
        client_config_overrides: Sequence[Mapping[str, Any]] | None = None,
        client_config_schema: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        clients: Sequence[str] | None = None,
        update_schema: Mapping[str, Any] | None = None,
        client_agg_results_schema: Mapping[str, Any] | None = None,
    ) -> Json:
        """Create a model; return it, with its `id`.

        stages, optimiser, staleness: the steps before and after the aggregator, each a mapping with its `name` and its
        parameters. update_kind: "delta" when clients send the change of their weights instead of the weights.
        array_policies: "stepped", "averaged", "newest", "collected" or "kept" by pattern of the arrays' names; without
        it running statistics of normalisation layers are averaged, and the other arrays are stepped.
        requirement: the condition to close a round; None closes it at the first update. allow_aggregation: True by
        default, unlike in the API; with False, call `start` when there are enough clients. furthest_base_agg: an update
        may start from one of so many newest aggregates.
        round_policy: goal, deadline, quorum, end of the experiment. selector, eligibility, seed: the selection of
        clients, which is the same for the same seed. client_config, client_config_overrides, client_config_schema: the
        training configuration, its changes for some rounds, tags or clients, and a JSON Schema that checks it.
        spec: names, shapes and dtypes; None takes them from the first weights. update_schema,
        client_agg_results_schema: JSON Schema.
        """
        wanted = {
            "name": name,
            "aggregator": aggregator,
            "aggregator_params": aggregator_params,
            "stages": stages,
            "optimiser": optimiser,
            "update_kind": update_kind,
            "staleness": staleness,
            "array_policies": array_policies,
            "requirement": requirement,
            "requirement_args": requirement_args,
            "allow_aggregation": allow_aggregation,
            "furthest_base_agg": furthest_base_agg,
            "round_policy": round_policy,
            "selector": selector,
            "eligibility": eligibility,
            "seed": seed,
            "client_config": client_config,
            "client_config_overrides": client_config_overrides,
            "client_config_schema": client_config_schema,
            "spec": spec,
            "clients": clients,
            "update_schema": update_schema,
            "client_agg_results_schema": client_agg_results_schema,
        }
        return self._send(
            "POST", "models/", {key: value for key, value in wanted.items() if value is not None}
        )

    def models(self, *, limit: int | None = None) -> list[Json]:
        """The models that this developer owns (all models, for staff)."""
        return self._list("models/", limit=limit)

    def model(self, model: int) -> Json:
        """One model."""
        return self._get(f"models/{model}/")

    def change_model(self, model: int, **changes: Any) -> Json:
        """Change a model, with the arguments of `create_model`; return it.

        An open round continues with the configuration that it began with; `history` has every version.
        """
        return self._send("PATCH", f"models/{model}/", changes)

    def start(self, model: int) -> Json:
        """Start the rounds of an experiment, for the first time or after its end; return the model."""
        return self._act(model, "start")

    def pause(self, model: int) -> Json:
        """Pause an experiment: it closes no round and asks no client, and updates wait. Return the model."""
        return self._act(model, "pause")

    def resume(self, model: int) -> Json:
        """Resume an experiment, with the updates that wait; return the model. Raises ExperimentEnded after its end."""
        return self._act(model, "resume")

    def cancel(self, model: int) -> Json:
        """End an experiment without the updates that wait; return the model."""
        return self._act(model, "cancel")

    def rewind(self, model: int, aggregate: int) -> Json:
        """Continue from an earlier aggregate; return its copy, which is now the newest aggregate."""
        return self._send("POST", f"models/{model}/rewind/", {"aggregate": aggregate})

    def clone(
        self, model: int, *, name: str | None = None, aggregate: int | None = None, clients: bool = False
    ) -> Json:
        """Create a model with the same configuration, without starting it; return it.

        aggregate: its first weights; None for the initial model. clients: whether to register the same clients.
        """
        wanted: Json = {"clients": clients}
        wanted |= {"name": name} if name is not None else {}
        wanted |= {"aggregate": aggregate} if aggregate is not None else {}
        return self._send("POST", f"models/{model}/clone/", wanted)

    def history(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The versions of a model's configuration, each with its author, time and changes."""
        return self._list(f"models/{model}/history/", limit=limit)

    def set_initial_model(
        self, model: int, arrays: Arrays, *, array_policies: Mapping[str, str] | None = None
    ) -> Json:
        """Set the first weights of a model, before its first aggregate; return the artifact (version 1.0.0).

        Large weights are sent in parts. The same call continues what a broken line or the end of the process has cut,
        and returns the artifact that these weights have become already.
        array_policies: those of an adapter (`torch_state_dict.array_policies(module)`); the model's own come first.
        """
        if array_policies:
            own = self.model(model)["array_policies"]
            self.change_model(model, array_policies={**array_policies, **own})
        path, body, who = f"api/v1/models/{model}/initial_model/", encoded(arrays), self._who()
        # The same weights have the same key, so that the server finds what another process began.
        key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{path}#{body.headers['Content-Digest']}"))
        answer = None
        if body.size_bytes >= LEAST_BYTES:
            # An older server takes parts of clients alone, and answers a developer with 403.
            with suppress(NotAllowed):
                answer = Uploads(self._transport, becomes=path).push(
                    body, facts=Facts({"initial_model": model}, key=key), headers=who
                )
        if answer is None:
            answer = self._transport.call("POST", path, headers=who, body=body, idempotency_key=key)
        artifact: Json = answer.json()
        return artifact

    def rounds(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The rounds of a model: state, clients that answered, timings, and the reason of a failure."""
        return self._list(f"models/{model}/rounds/", limit=limit)

    def selection(self, model: int, round: int) -> Json:
        """The selection of a round: one row for each candidate, chosen or not, with the reason."""
        pages = list(self._pages(f"models/{model}/rounds/{round}/selection/"))
        return {**pages[-1], "clients": [row for page in pages for row in page["clients"]]}

    def metrics(
        self,
        model: int,
        *,
        metric: str | None = None,
        source: str | None = None,
        first_round: int | None = None,
        last_round: int | None = None,
        per_client: bool = False,
    ) -> list[Json]:
        """The metrics of the published rounds, oldest first: mean, minimum, maximum and percentiles of each.

        source: "training", "validation" or "developer"; None for all. per_client: each client's number instead.
        """
        wanted = {"metric": metric, "source": source, "first_round": first_round, "last_round": last_round}
        filters: dict[str, str | int] = {key: value for key, value in wanted.items() if value is not None}
        if per_client:
            filters["per_client"] = "true"
        return [row for page in self._pages(f"models/{model}/metrics/", filters) for row in page]

    def participation(self, model: int) -> list[Json]:
        """The participation of each client of a model: asked, answered, late, duration, and last seen."""
        return self._list(f"models/{model}/participation/", limit=None)

    def cancel_round(self, model: int, round: int) -> Json:
        """End a collecting round without its updates, and open the next one. Return the round."""
        return self._act(model, f"rounds/{round}/cancel")

    def updates(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The updates of a model's clients."""
        return self._list("model_updates/", {"federated_model": model}, limit=limit)

    def aggregates(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The results of a model's rounds."""
        return self._list("model_aggregates/", {"federated_model": model}, limit=limit)

    def artifacts(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The published artifacts of a model."""
        return self._list("model_artifacts/", {"federated_model": model}, limit=limit)

    def scores(self, aggregate: int, *, limit: int | None = None) -> list[Json]:
        """The validation results of the clients for an aggregate."""
        return self._list("client_aggregate_scores/", {"aggregate": aggregate}, limit=limit)

    def publish(self, aggregate: int, version: str) -> Json:
        """Publish an aggregate under a version; return the artifact, which is now the model's current one."""
        return self._send("POST", f"model_aggregates/{aggregate}/publish_aggregate/", {"version": version})

    def open_evaluation(
        self,
        model: int,
        question: Question,
        *,
        aggregate: int | None = None,
        artifact: int | None = None,
        weights: Arrays | None = None,
        clients: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        organisations: Sequence[str] | None = None,
        min_contributors: int | None = None,
        quorum_per_organisation: int | None = None,
        deadline_s: float | None = None,
        name: str | None = None,
    ) -> Json:
        """Ask clients to evaluate one aggregate, one artifact or these weights; return the evaluation.

        It asks the clients that are named, have one of the tags or belong to one of the organisations (by name);
        without any of these, every client of the model. deadline_s: seconds from now, a day by default.
        """
        wanted = {
            "name": name,
            "question": question.to_json(),
            "aggregate": aggregate,
            "artifact": artifact,
            "clients": clients,
            "tags": tags,
            "organisations": organisations,
            "min_contributors": min_contributors,
            "quorum_per_organisation": quorum_per_organisation,
            "deadline_s": deadline_s,
        }
        asked = {key: value for key, value in wanted.items() if value is not None}
        path = f"models/{model}/evaluations/"
        if weights is None:
            return self._send("POST", path, asked)
        answer = self._transport.call(
            "POST",
            f"api/v1/{path}",
            params={"evaluation": dumps(asked)},
            headers=self._who(),
            body=encoded(weights),
        )
        opened: Json = answer.json()
        return opened

    def evaluations(self, model: int, *, limit: int | None = None) -> list[Json]:
        """The evaluations of a model."""
        return self._list(f"models/{model}/evaluations/", limit=limit)

    def evaluation(self, evaluation: int) -> Json:
        """One evaluation: its progress, and after its end its `metrics`, or in `withheld` the reason why not."""
        return self._get(f"evaluations/{evaluation}/")

    def evaluation_results(self, evaluation: int, *, limit: int | None = None) -> list[Json]:
        """The results of the clients of the developer's own organisation; empty without an organisation."""
        return self._list(f"evaluations/{evaluation}/results/", limit=limit)

    def close_evaluation(self, evaluation: int) -> Json:
        """Close an evaluation; return it, with its metrics if enough clients have answered."""
        return self._send("POST", f"evaluations/{evaluation}/close/", {})

    def cancel_evaluation(self, evaluation: int) -> Json:
        """Cancel an evaluation: it takes no more results and shows none."""
        return self._send("POST", f"evaluations/{evaluation}/cancel/", {})

    def watch(
        self, model: int, *, after_round: int | None = None, timeout_s: float | None = None
    ) -> Iterator[Json]:
        """Watch a model: yield each round when it is published, cancelled or failed, in order, until timeout_s.

        after_round: begin after this round; 0 includes all rounds that are over. None: only rounds that end from now
        on.
        """
        return finished_rounds(
            lambda: self._newest_first(f"models/{model}/rounds/"),
            lambda aggregate, wait_s: self._await_aggregate(model, aggregate, wait_s),
            after_round=after_round,
            timeout_s=timeout_s,
            transport=self._transport,
        )

    def download(
        self,
        *,
        to: str | os.PathLike[str],
        aggregate: int | None = None,
        artifact: int | None = None,
        latest_of: int | None = None,
        timeout_s: float | None = None,
    ) -> Path:
        """Download the weights of an aggregate, of an artifact, or the latest ones of a model to a safetensors file.

        The file appears when it is complete and its sha256 is right. A broken download is resumed. Raises
        UnexpectedAnswer when the bytes are damaged each time.
        timeout_s: the limit of the whole; None: the client's timeout_s, which is about silence.
        """
        paths = {
            f"api/v1/model_aggregates/{aggregate}/weights/": aggregate,
            f"api/v1/model_artifacts/{artifact}/weights/": artifact,
            f"api/v1/models/{latest_of}/get_latest_model/": latest_of,
        }
        chosen = [path for path, id_ in paths.items() if id_ is not None]
        if len(chosen) != 1:
            raise InvalidArgument("give exactly one of aggregate=, artifact= and latest_of=")
        written = download(
            self._transport,
            chosen[0],
            to=Path(to),
            headers={"Accept": SAFETENSORS, **self._who()},
            timeout_s=timeout_s,
        )
        if written is None:
            raise UnexpectedAnswer(
                f"model {latest_of} has no weights yet" if latest_of else f"{chosen[0]} is empty"
            )
        return written

    def _await_aggregate(self, model: int, after: int, wait_s: float) -> None:
        # One byte is enough to know that there is a newer aggregate.
        headers = {"Accept": SAFETENSORS, "Range": "bytes=0-0", **self._who()}
        self._transport.exchange(
            "GET",
            f"api/v1/models/{model}/get_latest_model/",
            lambda: headers,
            lambda response, deadline: None,
            params={"after": after},
            wait_s=wait_s,
        )

    def _act(self, model: int, action: str) -> Json:
        changed: Json = self._transport.call(
            "POST", f"api/v1/models/{model}/{action}/", headers=self._who()
        ).json()
        return changed

    def _get(self, path: str) -> Json:
        content: Json = self._transport.call("GET", f"api/v1/{path}", headers=self._who()).json()
        return content

    def _send(self, method: str, path: str, body: Mapping[str, Any]) -> Json:
        answer = self._transport.call(method, f"api/v1/{path}", headers=self._who(), json_body=body)
        made: Json = answer.json()
        return made

    def _list(self, path: str, filters: Mapping[str, int] | None = None, *, limit: int | None) -> list[Json]:
        items: list[Json] = []
        for item in self._newest_first(path, filters):
            if limit is not None and len(items) >= limit:
                break
            items.append(item)
        return items

    def _newest_first(self, path: str, filters: Mapping[str, int] | None = None) -> Iterator[Json]:
        seen: set[int | str] = set()
        for page in self._pages(path, filters):
            if not isinstance(page, list):
                raise UnexpectedAnswer(f"{path} answered {type(page).__name__}; a list was expected")
            for item in page:
                # A new object moves the last one of a page to the next page.
                key = item.get("id", item.get("number", item.get("client")))
                if key not in seen:
                    seen.add(key)
                    yield item

    def _pages(self, path: str, filters: Mapping[str, str | int] | None = None) -> Iterator[Any]:
        params: dict[str, str | int] | None = {**(filters or {}), "page_size": PAGE_SIZE}
        while params is not None:
            answer = self._transport.call("GET", f"api/v1/{path}", params=params, headers=self._who())
            yield answer.json()
            params = _next_page(answer.headers)

    def _who(self) -> dict[str, str]:
        with self._lock:
            if self._token is None:
                answer = self._transport.call("POST", "api-token-auth/", json_body=self._login).json()
                if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
                    raise UnexpectedAnswer("the server answered a login without a token")
                self._token, self._login = answer["token"], None
            return {"Authorization": f"Token {self._token}"}


def _next_page(headers: httpx.Headers) -> dict[str, str | int] | None:
    following = httpx.Response(200, headers=headers).links.get("next")
    if following is None:
        return None
    # Only the query is used: the token is sent only to the address that the caller named.
    return dict(httpx.URL(following["url"]).params)
