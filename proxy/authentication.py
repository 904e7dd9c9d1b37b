"""From a header to verified claims."""

from __future__ import annotations

from django.http import HttpRequest

from grants import tokens

from .exceptions import Unauthorized
from .inbound import token_of


def authenticate(request: HttpRequest) -> tokens.Claims:
    """The claims of the relay's only credential, a delegated token.

    Raises:
        Unauthorized: there is none, or it is not valid.
        BadRequest: there are two, or one in the URL.
    """
    try:
        return tokens.verify(token_of(request))
    except tokens.InvalidToken as error:
        raise Unauthorized(error.message, code=error.code) from error
