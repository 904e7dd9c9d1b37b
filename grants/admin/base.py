"""What the desk's pages have in common: who sees what, and pages of our own inside the theme."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin

from ..actors import actor_of
from ..models import Actor
from ..pace import Unhurried

Act = Callable[[Actor], bool]


def is_owner(request: HttpRequest) -> bool:
    """Whoever may sign in to the desk is an owner; which rows are theirs is decided row by row."""
    return request.user.is_active and request.user.is_staff


def is_superuser(request: HttpRequest) -> bool:
    return is_owner(request) and request.user.is_superuser


def by(request: HttpRequest) -> Actor:
    return actor_of(request, "admin")


class DeskList(ChangeList):
    """A list whose rows are worked through without keeping the worker's streams waiting."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: Any = Unhurried(self.result_list)


class DeskAdmin(ModelAdmin):
    """A model on the desk. Subclasses say which rows a user may see: :meth:`rows`.

    Nothing is ever deleted here, and nothing is changed by the admin's own forms: pages press the models' buttons.
    Filters and lookups are those of ``list_filter`` and no others, so that no column can be probed.
    """

    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_filter_submit = True
    list_per_page = 50
    detail_pages: tuple[str, ...] = ()
    list_pages: tuple[str, ...] = ()
    trail = ""  # the audit list's filter for rows of this model

    def rows(self, user: Any) -> QuerySet[Any]:
        raise NotImplementedError

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return DeskList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = self.rows(request.user)
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows

    # Who may what

    def allows(self, request: HttpRequest, obj: Any = None) -> bool:
        if not is_owner(request):
            return False
        return obj is None or self.rows(request.user).filter(pk=obj.pk).exists()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.allows(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in {item.parameter_name for item in self.list_filter}

    def find(self, request: HttpRequest, object_id: Any) -> Any:
        """The row, if it is among the user's.

        Raises:
            PermissionDenied: not an owner. Http404: not there, or not theirs.
        """
        if not self.allows(request):
            raise PermissionDenied
        try:
            if not str(object_id).isprintable():
                raise ValueError("PostgreSQL cannot store NUL characters")
            return self.get_queryset(request).get(pk=object_id)
        except (self.model.DoesNotExist, ValidationError, ValueError) as error:
            raise Http404(f"No such {self.opts.verbose_name}.") from error

    # Pages

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.to_python(chosen)
            except ValidationError as error:
                raise BadRequest("Not a row of this list.") from error
        return super().changelist_view(request, extra_context)

    def get_urls(self) -> list[URLPattern]:
        """``detail_pages`` and ``list_pages`` name views ``…_page``, at URLs and URL names of the same name."""
        detail = [self._page(f"<path:object_id>/{name.replace('_', '-')}/", name) for name in self.detail_pages]
        listed = [self._page(f"{name.replace('_', '-')}/", name) for name in self.list_pages]
        return listed + detail + super().get_urls()

    def _page(self, route: str, name: str) -> URLPattern:
        view = self.admin_site.admin_view(getattr(self, f"{name}_page"))
        return path(route, view, name=f"{self.opts.app_label}_{self.opts.model_name}_{name}")

    def url(self, name: str, *args: Any) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}", args=args)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One row to read: :meth:`facts`."""
        obj = self.find(request, object_id)
        return self.render(
            request, "desk/facts.html", obj, title=str(obj), groups=self.facts(obj), actions_detail=self.buttons(obj)
        )

    def facts(self, obj: Any) -> dict[str, dict[str, Any]]:
        """Heading → label → value, for those models that have no page of their own."""
        raise NotImplementedError

    def buttons(self, obj: Any) -> list[dict[str, Any]]:
        """Links in the header of the row's page, see :func:`header_button`."""
        return []

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The audit trail is the history."""
        obj = self.find(request, object_id)
        query = f"?{self.trail}={obj.pk}" if self.trail else ""
        return redirect(reverse("admin:grants_auditevent_changelist") + query)

    def render(self, request: HttpRequest, template: str, obj: Model | None = None, **context: Any) -> TemplateResponse:
        """A page of our own inside the theme."""
        request.current_app = self.admin_site.name
        shown = self.admin_site.each_context(request) | {"opts": self.opts, "original": obj, "object": obj} | context
        return TemplateResponse(request, template, shown)

    def press(
        self, request: HttpRequest, obj: Any, act: Act, *, done: str, late: str, then: str | None = None
    ) -> HttpResponseRedirect:
        """Press a model's button and say how it went. ``late``: somebody was faster."""
        try:
            won = act(by(request))
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
        else:
            messages.success(request, done) if won else messages.warning(request, late)
        return redirect(then or self.url("change", obj.pk))

    def confirm(
        self,
        request: HttpRequest,
        obj: Any,
        act: Act,
        *,
        title: str,
        sentences: Iterable[str],
        button: str,
        done: str,
        late: str,
        danger: bool = True,
        then: str | None = None,
    ) -> HttpResponse:
        """A button that asks first: GET asks, POST does."""
        if request.method == "POST":
            return self.press(request, obj, act, done=done, late=late, then=then)
        return self.render(
            request,
            "desk/confirm.html",
            obj,
            title=title,
            sentences=sentences,
            button=button,
            danger=danger,
            back=then or self.url("change", obj.pk),
        )


def header_button(title: str, path: str, icon: str, variant: str = "default", **attrs: Any) -> dict[str, Any]:
    """A link in the page's header, as the theme wants it described."""
    return {"title": title, "path": path, "icon": icon, "variant": variant, "attrs": attrs}


def with_buttons(response: Any, *buttons: dict[str, Any]) -> Any:
    """A list of the theme's own with our links in its header."""
    if isinstance(response, TemplateResponse) and response.context_data is not None:
        response.context_data["actions_list"] = list(buttons)
    return response
