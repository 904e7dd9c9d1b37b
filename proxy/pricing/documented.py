"""Prices that providers document and that the installed genai-prices lacks, each with its source.

A row counts only where the price list in force has none for the name. Delete a row when the installed data has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from genai_prices.types import ModelInfo

DOCUMENTED: Mapping[str, tuple[ModelInfo, ...]] = {}
