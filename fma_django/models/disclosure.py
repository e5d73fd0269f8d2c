"""The clients whose merged metrics a user was shown."""

from django.db import models

from fma_django.models.client import Client


class Disclosure(models.Model):
    """One client of one evaluation that an observer was shown.

    Kept for as long as the client exists, whatever becomes of the evaluation, its model and the observer's account:
    the difference between what was seen once and the next evaluation would speak of few.

    observer: the id of the user who owns, or owned, the model. evaluation: its id. contributor: what the client counted
    for then.
    """

    observer = models.BigIntegerField()
    evaluation = models.BigIntegerField()
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="disclosures")
    contributor = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("observer", "evaluation", "client"), name="disclosure_once_to_an_observer"
            ),
        ]

    def __str__(self) -> str:
        return f"client {self.client_id} in evaluation {self.evaluation}"
