"""The paths of the whole server."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from fma_api import admin_login, health
from fma_api.documentation import DocsView, SchemaView
from fma_api.v1.accounts.login import LoginView

admin.autodiscover()

urlpatterns = [
    path("api/v1/", include("fma_api.v1.urls")),
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    path("admin/login/", admin_login.login, name="account_login"),
    path("admin/logout/", admin.site.logout),  # also for whoever may not enter, and has a session
    path("admin/", include("fma_api.second_factor.urls")),
    path("admin/login/", include("fma_api.oidc.urls")),
    path("admin/", admin.site.urls),
    path("api-token-auth/", LoginView.as_view(), name="login"),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("api/docs/", DocsView.as_view(url_name="schema"), name="docs"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]

handler400 = "fma_api.problems.bad_request"
handler403 = "fma_api.problems.permission_denied"
handler404 = "fma_api.problems.not_found"
handler500 = "fma_api.problems.server_error"
