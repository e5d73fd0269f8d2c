"""A script as users of FMA's Python client wrote it; run unchanged with that client and with ours.

    python old_client_script.py URL MODEL WEIGHTS1 WEIGHTS2

Two clients train two rounds of a model that aggregates when two have answered. Prints all answers as JSON.
"""

import json
import sys
import time

import fma_connect
from fma_connect import WebClient, exceptions

url, model = sys.argv[1], int(sys.argv[2])
weights = [json.loads(argument) for argument in sys.argv[3:5]]
transcript: list[object] = []


def note(what, answer):
    transcript.append([what, answer])
    return answer


def note_error(what, call, *arguments):
    try:
        call(*arguments)
    except exceptions.APIException as error:
        note(what, str(error))
    else:
        note(what, "no error")


def until_new(check):
    for _ in range(600):
        answer = check()
        if answer is not None:
            return answer
        time.sleep(0.05)
    raise SystemExit("no aggregate came")


def trained(values, step):
    if isinstance(values, dict):
        return {name: trained(value, step) for name, value in values.items()}
    if isinstance(values, list):
        return [trained(value, step) for value in values]
    return values + step


def doubled(values):
    if isinstance(values, dict):
        return {name: doubled(value) for name, value in values.items()}
    if values and not isinstance(values[0], list):
        return values + values
    return [doubled(value) for value in values]


alice = WebClient(federated_model_id=model, url=url)
bob = WebClient(model, None, url)
note("register", alice.register())
note("register again", alice.register())
note("uuid registers", bob.uuid)
note("same uuid", alice.uuid == alice.register())
note("returning client", WebClient(model, uuid=alice.uuid, url=url).register() == alice.uuid)
note("no aggregate yet", alice.check_for_new_model_aggregate())
note("artifact", alice.get_current_artifact())
start = note("initial model", alice.check_for_latest_model())
note("initial model is old", alice.check_for_latest_model())

note("update of alice", alice.send_update(trained(start["values"], 0.25)))
note("too few", alice.check_for_new_model_aggregate())
note("update of bob", bob.send_update(trained(start["values"], 0.5), base_aggregate=None))
first = note("first aggregate", until_new(alice.check_for_new_model_aggregate))
note("first aggregate is old", alice.check_for_new_model_aggregate())
note("latest model is old as well", alice.check_for_latest_model())
latest = note("latest model", bob.check_for_latest_model())

for name, client, data in (("alice", alice, weights[0]), ("bob", bob, weights[1])):
    note("second update of " + name, client.send_update(data, base_aggregate=first["id"]))
second = note("second aggregate", until_new(alice.check_for_new_model_aggregate))
note("after the first", bob.check_for_latest_model(update_after=first["id"]))
note("after the second", bob.check_for_latest_model(update_after=second["id"]))
note("artifact stays", bob.get_current_artifact())
note("scores", alice.send_val_results({"f1": 0.75, "per_class": [0.5, 1]}, second["id"]))

note_error("scores twice", alice.send_val_results, {"f1": 0.5}, second["id"])
note_error("no credential", WebClient(model, url=url).check_for_latest_model)
note_error(
    "wrong credential",
    WebClient(model, uuid="c0ffee00-0000-4000-8000-000000000000", url=url).send_update,
    [1.0],
)
note_error("wrong credential registers", WebClient(model, uuid="nonsense", url=url).register)
note_error("unknown model", WebClient(999999999, url=url).register)
note_error("wrong shape", alice.send_update, doubled(weights[0]))
note_error("not weights", alice.send_update, "weights")
note_error("unknown base", alice.send_update, weights[0], 999999999)

print(json.dumps({"version": fma_connect.__version__, "transcript": transcript}))
