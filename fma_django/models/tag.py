"""A word that operators give to clients, for selection and configuration."""

from django.core.validators import RegexValidator
from django.db import models

TAG = RegexValidator(r"\A[\w.:=-]{1,64}\Z", "A tag has 1 to 64 letters, digits and the signs . : = _ -")


class Tag(models.Model):
    name = models.CharField(max_length=64, unique=True, validators=[TAG])

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
