from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from . import health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/search/", RedirectView.as_view(pattern_name="admin:index")),  # the theme's; off
    path("admin/", admin.site.urls),
    path("api/", include("grants.api.urls")),
    path("consent/", include("grants.consent_urls")),
    path(".well-known/jwks.json", health.jwks, name="jwks"),
    path("health", health.health, name="health"),
    path("ready", health.ready, name="ready"),
]
