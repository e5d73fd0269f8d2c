"""Uploads on the wire."""

from rest_framework import serializers

from fma_django.models import Upload
from fma_django.updates.uploads import offset_of


class UploadSerializer(serializers.ModelSerializer[Upload]):
    offset = serializers.SerializerMethodField(help_text="The number of bytes that have arrived.")

    class Meta:
        model = Upload
        fields = ("id", "offset", "size_bytes", "expires_on")
        read_only_fields = fields

    def get_offset(self, upload: Upload) -> int:
        return offset_of(upload)
