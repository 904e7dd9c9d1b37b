from django.apps import AppConfig


class AIPassportConfig(AppConfig):
    name = "aipassport"

    def ready(self) -> None:
        from . import checks  # noqa: F401  registers them
