"""Prices that providers document and that the installed genai-prices lacks, each with its source.

A row counts only where the price list in force has none for the name. Delete a row when the installed data has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from genai_prices.types import ClauseEquals, ClauseOr, ClauseRegex, ModelInfo, ModelPrice, Tier, TieredPrices


def _tiered(base: str, above: str) -> TieredPrices:
    return TieredPrices(Decimal(base), [Tier(272_000, Decimal(above))])


def _mythos(name: str, cache_read: str) -> ModelInfo:
    """platform.claude.com/docs/en/about-claude/pricing: the table of models, prompt caching, web search."""
    return ModelInfo(
        id=name,
        match=ClauseOr([ClauseEquals(name), ClauseRegex(rf"^{name}-\d{{8}}$")]),
        prices=ModelPrice(
            input_mtok=Decimal(10),
            output_mtok=Decimal(50),
            cache_read_mtok=Decimal(cache_read),
            cache_write_mtok=Decimal("12.5"),
            cache_write_1h_mtok=Decimal(20),
            web_searches_kcount=Decimal(10),
        ),
    )


DOCUMENTED: Mapping[str, tuple[ModelInfo, ...]] = {
    "anthropic": (_mythos("claude-mythos-5", "1"), _mythos("claude-mythos-5-1", "0.25")),
    "openai": (
        # developers.openai.com/api/docs/models/gpt-6.2-sol. A cache write costs $2.50, or $5 for 12 hours; answers do
        # not tell which, so the higher price counts. Above 272K input tokens: input and cache × 2, output × 1.5.
        ModelInfo(
            id="gpt-6.2-sol",
            match=ClauseEquals("gpt-6.2-sol"),
            context_window=1_050_000,
            prices=ModelPrice(
                input_mtok=_tiered("2", "4"),
                output_mtok=_tiered("10", "15"),
                cache_read_mtok=_tiered("0.1", "0.2"),
                cache_write_mtok=_tiered("5", "10"),
            ),
        ),
    ),
}

# Dated names that cost what the name without the date costs: the provider lists both under one price
# (developers.openai.com/api/docs/models/gpt-4o-mini-tts and …/gpt-4o-mini-transcribe, "Snapshots").
SNAPSHOTS: Mapping[str, Mapping[str, str]] = {
    "openai": {
        f"{name}-{date}": name
        for name in ("gpt-4o-mini-tts", "gpt-4o-mini-transcribe")
        for date in ("2025-03-20", "2025-12-15")
    }
}
