"""The routes of version 1, a folder a resource."""

from django.urls import path

from fma_api.v1.accounts import urls as accounts
from fma_api.v1.aggregates import urls as aggregates
from fma_api.v1.algorithms import urls as algorithms
from fma_api.v1.artifacts import urls as artifacts
from fma_api.v1.clients import urls as clients
from fma_api.v1.evaluations import urls as evaluations
from fma_api.v1.invitations import urls as invitations
from fma_api.v1.models import urls as models
from fma_api.v1.reports import urls as reports
from fma_api.v1.root import RootView
from fma_api.v1.scores import urls as scores
from fma_api.v1.updates import urls as updates
from fma_api.v1.uploads import urls as uploads

# One list, and not a resolver for each resource: each would be one more step to find a view. What is asked for most is
# looked for first.
urlpatterns = [
    *updates.urlpatterns,
    *models.urlpatterns,
    *aggregates.urlpatterns,
    *artifacts.urlpatterns,
    *scores.urlpatterns,
    *evaluations.urlpatterns,
    *clients.urlpatterns,
    *invitations.urlpatterns,
    *uploads.urlpatterns,
    *accounts.urlpatterns,
    *algorithms.urlpatterns,
    *reports.urlpatterns,
]
urlpatterns.append(path("", RootView.as_view(routes=tuple(urlpatterns)), name="root"))
