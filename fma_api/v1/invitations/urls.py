"""The routes of `invitations/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.invitations.views import InvitationViewSet

router = SimpleRouter()
router.register("invitations", InvitationViewSet, basename="invitation")

urlpatterns = router.urls
