from django.urls import path, re_path, register_converter
from django.urls.converters import StringConverter

from . import (
    views_apps,
    views_grants,
    views_keys,
    views_login,
    views_preferences,
    views_schema,
    views_totals,
    views_trail,
)


class JtiConverter(StringConverter):
    regex = "[0-9a-f]{32}"


register_converter(JtiConverter, "jti")

urlpatterns = [
    path("grant-requests/", views_apps.GrantRequests.as_view(), name="api-grant-requests"),
    path("tokens/", views_apps.Tokens.as_view(), name="api-tokens"),
    path("tokens/introspect/", views_apps.Introspect.as_view(), name="api-introspect"),
    path("tokens/revoke/", views_apps.Revoke.as_view(), name="api-revoke"),
    path("auth/token/", views_login.Login.as_view(), name="api-login"),
    path("auth/token/refresh/", views_login.Refresh.as_view(), name="api-refresh"),
    path("grants/", views_grants.Grants.as_view(), name="api-grants"),
    path("grants/<uuid:pk>/", views_grants.OneGrant.as_view(), name="api-grant"),
    path("grants/<uuid:pk>/approve/", views_grants.Approve.as_view(), name="api-approve"),
    path("grants/<uuid:pk>/deny/", views_grants.Deny.as_view(), name="api-deny"),
    path("grants/<uuid:pk>/revoke/", views_grants.RevokeGrant.as_view(), name="api-revoke-grant"),
    path("grants/<uuid:pk>/reopen/", views_grants.Reopen.as_view(), name="api-reopen-grant"),
    path("grants/<uuid:pk>/rotate-secret/", views_grants.RotateSecret.as_view(), name="api-rotate-secret"),
    path("grants/<uuid:pk>/tokens/", views_grants.GrantTokens.as_view(), name="api-grant-tokens"),
    path("grants/<uuid:pk>/tokens/<jti:jti>/revoke/", views_grants.RevokeToken.as_view(), name="api-revoke-token"),
    path("provider-keys/", views_keys.Keys.as_view(), name="api-keys"),
    path("provider-keys/<uuid:pk>/", views_keys.OneKey.as_view(), name="api-key"),
    path("calls/", views_trail.Calls.as_view(), name="api-calls"),
    path("calls.csv", views_trail.CallsFile.as_view(), name="api-calls-csv"),
    path("totals/", views_totals.Totals.as_view(), name="api-totals"),
    path("events/", views_trail.Events.as_view(), name="api-events"),
    path("preferences/", views_preferences.OwnPreferences.as_view(), name="api-preferences"),
    path("preferences/webhook-secret/", views_preferences.WebhookSecret.as_view(), name="api-webhook-secret"),
    path("preferences/test/", views_preferences.SendTest.as_view(), name="api-notice-test"),
    path("notices/", views_preferences.Notices.as_view(), name="api-notices"),
    path("schema/", views_schema.Schema.as_view(), name="api-schema"),
    path("docs/", views_schema.Docs.as_view(), name="api-docs"),
    re_path("", views_schema.NotHere.as_view(), name="api-not-here"),
]
