"""The routes of `uploads/`."""

from rest_framework.routers import SimpleRouter

from fma_api.v1.uploads.views import UploadViewSet

router = SimpleRouter()
router.register("uploads", UploadViewSet, basename="upload")

urlpatterns = router.urls
