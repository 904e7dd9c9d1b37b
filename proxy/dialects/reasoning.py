"""The models that are known to give out their reasoning encrypted, where a Responses call asks for it.

Every other model of OpenAI and Azure answers 400 ("Encrypted content is not supported with this model"): gpt-4o,
gpt-4.1, gpt-5-chat. A model that is missing here only loses this help, so a new one is added when it is documented.

Sources: https://developers.openai.com/api/docs/guides/reasoning ("Encrypted reasoning items") and the model pages.
``isReasoningModel`` in ``packages/openai/src/openai-language-model-capabilities.ts`` of https://github.com/vercel/ai,
which asks for the same under ``store: false``. Models named ``chat`` are left out, whatever their version.
"""

from __future__ import annotations

import re
from functools import lru_cache

ENCRYPTED = "reasoning.encrypted_content"

_PROVIDERS = frozenset({"openai", "azure"})
_DATE = r"(?:-20\d\d-\d\d-\d\d)?"
_KNOWN = re.compile(
    rf"""(?:
        o1(?:-pro)? | o3(?:-mini|-pro|-deep-research)? | o4-mini(?:-deep-research)?
        | gpt-5(?:-mini|-nano|-pro|-codex)?
        | gpt-5\.[1-5](?:-mini|-nano|-pro|-codex|-codex-mini|-codex-max)?
        | gpt-5\.6-(?:luna|sol|terra) | gpt-6-(?:astra|luna|sol) | gpt-6\.1-(?:sol|terra) | gpt-6\.2-sol
    ){_DATE} | codex-mini-latest""",
    re.VERBOSE,
)


@lru_cache(maxsize=2048)
def gives_encrypted(provider: str, model: str) -> bool:
    """Whether ``include: ["reasoning.encrypted_content"]`` is surely taken."""
    return provider in _PROVIDERS and bool(_KNOWN.fullmatch(model.lower()))
