"""The routes of Capital One's FMA, below `api/` as in its repository."""

from django.urls import include, path

urlpatterns = [path("api/", include("fma_django_api.urls"))]
