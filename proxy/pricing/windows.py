"""How many tokens a model can read at most, for input that the request does not show.

Only models whose own documentation says it stand here. The context windows of genai-prices are not maintained (1.9 and
3.7 times too small for some models), so they bound nothing. A model that is missing has no known window: a call with
input that the body does not show then needs the owner's limit of money per call. Names are matched whole.

A number may be too large: that only reserves more. "1M" counts as 1,048,576.
"""

from __future__ import annotations

import re
from functools import lru_cache

from grants.providers import Provider

_MILLION = 1_048_576
_DATE = r"(?:-20\d\d-\d\d-\d\d)?"
_DAY = r"(?:-20\d{6}|-latest)?"

# OpenAI: the model pages, https://developers.openai.com/api/docs/models
# Anthropic: https://platform.claude.com/docs/en/about-claude/models/overview; longer with the beta ``context-1m``.
# Google: the model pages, https://ai.google.dev/gemini-api/docs/models, "Input token limit".
_ROWS: dict[str, tuple[tuple[str, int], ...]] = {
    "openai": (
        (r"gpt-3\.5-turbo(?:-0125|-1106|-16k|-instruct)?", 16_385),
        (r"gpt-4(?:-0613)?", 8_192),
        (r"gpt-4-32k(?:-0613)?", 32_768),
        (rf"gpt-4-turbo(?:-preview)?{_DATE}", 128_000),
        (rf"chatgpt-4o-latest|gpt-4o(?:-mini)?{_DATE}", 128_000),
        (rf"gpt-4\.1(?:-mini|-nano)?{_DATE}", 1_047_576),
        (rf"o1(?:-pro)?{_DATE}|o3(?:-mini|-pro)?{_DATE}|o4-mini{_DATE}", 200_000),
        (rf"gpt-5(?:-mini|-nano|-pro)?{_DATE}|gpt-5\.1{_DATE}|gpt-5\.2(?:-pro)?{_DATE}", 400_000),
        (rf"gpt-5\.4-(?:mini|nano){_DATE}", 400_000),
        (rf"gpt-5\.[45](?:-pro)?{_DATE}", 1_050_000),
        (rf"gpt-5\.6-(?:luna|sol|terra){_DATE}|gpt-6-(?:astra|luna|sol){_DATE}", 1_050_000),
        (rf"gpt-6\.1-(?:sol|terra){_DATE}|gpt-6\.2-sol{_DATE}", 1_050_000),
    ),
    "anthropic": (
        (rf"claude-3-(?:opus|sonnet|haiku){_DAY}|claude-3-[57]-(?:sonnet|haiku){_DAY}", 200_000),
        (rf"claude-(?:opus|sonnet)-4{_DAY}|claude-(?:opus|sonnet)-4-0|claude-opus-4-1{_DAY}", 200_000),
        (rf"claude-(?:opus|sonnet|haiku)-4-5{_DAY}", 200_000),
        (rf"claude-opus-4-[678]{_DAY}|claude-sonnet-4-6{_DAY}", _MILLION),
        (rf"claude-(?:opus|sonnet)-5(?:-5)?{_DAY}|claude-haiku-5-5{_DAY}", _MILLION),
        (rf"claude-(?:fable|mythos)-5(?:-[12])?{_DAY}", _MILLION),
    ),
    "google": (
        (r"gemini-1\.5-pro(?:-00[12]|-latest)?", 2 * _MILLION),
        (r"gemini-1\.5-flash(?:-8b)?(?:-00[12]|-latest)?", _MILLION),
        (r"gemini-2\.0-flash(?:-lite)?(?:-001)?", _MILLION),
        (r"gemini-2\.5-(?:pro|flash|flash-lite)", _MILLION),
        (r"gemini-3-(?:pro|flash)-preview|gemini-3\.1-pro-preview(?:-customtools)?", _MILLION),
        (r"gemini-3\.1-flash-lite|gemini-3\.5-flash(?:-lite)?|gemini-3\.[678]-flash|gemini-4-argon", _MILLION),
    ),
}
_WINDOWS = {
    provider: tuple((re.compile(pattern), tokens) for pattern, tokens in rows) for provider, rows in _ROWS.items()
}


def window(provider: Provider, model: str) -> int | None:
    """How many tokens ``model`` can read at most; ``None`` where no documentation says it."""
    return _window("openai" if provider.id == "azure" else provider.id, model)


@lru_cache(maxsize=2048)
def _window(provider_id: str, model: str) -> int | None:
    rows, name = _WINDOWS.get(provider_id, ()), model.lower().removeprefix("models/")
    return next((tokens for pattern, tokens in rows if pattern.fullmatch(name)), None)
