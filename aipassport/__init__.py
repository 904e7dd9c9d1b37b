"""The only source of the version: pyproject.toml and the API schema read it."""

__version__ = "0.1.0"
