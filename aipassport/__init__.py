"""The version of AIPassport stands here and nowhere else: pyproject.toml and the API schema read it."""

__version__ = "0.1.0"
