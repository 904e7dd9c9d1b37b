from django.urls import path

from .consent import Consent

urlpatterns = [path("<uuid:pk>/", Consent.as_view(), name="consent")]
