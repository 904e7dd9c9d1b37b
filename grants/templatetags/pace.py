"""What a long page does between two of its rows."""

from __future__ import annotations

from django import template

from .. import pace

register = template.Library()


@register.simple_tag
def give_way() -> str:
    """Writes nothing; lets the worker's streams run if this page has kept them waiting for a while."""
    pace.give_way()
    return ""
