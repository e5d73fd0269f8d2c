"""TensorBoard: a folder for each model, a step for each round. The extra `tensorboard`."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from fma_django.forwarders.forwarder import Number
from fma_django.models import FederatedModel

# TensorBoard looks for names with "tfevents", and reads on where it was when one grows.
EVENTS = "events.out.tfevents.0000000000.fma"
VERSION = "brain.Event:2"


class TensorboardEvents:
    """Forwards to event files in a folder, the one of `tensorboard --logdir`."""

    target: ClassVar[str] = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def begin(self, federated_model: FederatedModel) -> str:
        return f"model-{federated_model.pk}"

    def send(self, run: str, numbers: Sequence[Number]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        file = self._folder / run / EVENTS
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        if not file.exists():
            first = numbers[0].at if numbers else 0.0
            records.write(Event(wall_time=first, file_version=VERSION).SerializeToString())
        for number in numbers:
            value = Summary.Value(tag=number.name, simple_value=number.value)
            event = Event(wall_time=number.at, step=number.round, summary=Summary(value=[value]))
            records.write(event.SerializeToString())
        # In one write at the end, so that two workers never mix their records.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, buffer.getvalue())
        finally:
            os.close(descriptor)

    def end(self, run: str) -> None:
        """Nothing: a folder has no end."""
