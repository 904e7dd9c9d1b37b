"""The lines of command-line agents. See :mod:`grants.clients`."""

from __future__ import annotations

from .client_rows import SHELL, Client, Part

_ENVIRONMENT = "Export a new token and start it again; it reads the environment when it starts."

TOOLS = (
    Client(
        name="claude-code",
        title="Claude Code",
        base="/proxy",
        dialect="anthropic",
        parts=(
            Part(
                SHELL,
                "sh",
                """\
export ANTHROPIC_BASE_URL=@URL@/proxy
export ANTHROPIC_AUTH_TOKEN=@TOKEN@
export ANTHROPIC_MODEL=@MODEL@
export ANTHROPIC_DEFAULT_HAIKU_MODEL=@MODEL@
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1""",
            ),
        ),
        fresh=(
            'Put {"apiKeyHelper": "aipassport-token"} into ~/.claude/settings.json and leave ANTHROPIC_AUTH_TOKEN out. '
            "It is run again every 5 minutes, or as often as CLAUDE_CODE_API_KEY_HELPER_TTL_MS says: let tokens live "
            "longer than that."
        ),
        also=(
            "the model of ANTHROPIC_DEFAULT_HAIKU_MODEL for small tasks, and those of "
            "ANTHROPIC_DEFAULT_SONNET_MODEL and ANTHROPIC_DEFAULT_OPUS_MODEL where one of these names is chosen."
        ),
        off='the tool WebSearch, unless the grant has the capability web: {"permissions": {"deny": ["WebSearch"]}}.',
        tried="2.1.332",
    ),
    Client(
        name="codex",
        title="Codex CLI",
        dialect="openai",
        parts=(
            Part(
                "~/.codex/config.toml",
                "toml",
                """\
model = "@MODEL@"
model_provider = "aipassport"
web_search = "disabled"

[model_providers.aipassport]
name = "AIPassport"
base_url = "@URL@/proxy/v1"
wire_api = "responses"
env_key = "AIPASSPORT_TOKEN\"""",
            ),
            Part(SHELL, "sh", "export AIPASSPORT_TOKEN=@TOKEN@"),
        ),
        fresh=(
            'Write auth = { command = "aipassport-token", refresh_interval_ms = 300000 } instead of env_key. '
            "Codex then runs the command again by itself."
        ),
        also="the model of review_model for /review, where one is set.",
        off='the hosted web search (web_search = "disabled", above), unless the grant has the capability web.',
        tried="0.171.0",
    ),
    Client(
        name="gemini-cli",
        title="Gemini CLI",
        base="/proxy",
        dialect="google",
        parts=(
            Part(
                "~/.gemini/settings.json",
                "json",
                '{"security": {"auth": {"selectedType": "gemini-api-key"}}}',
            ),
            Part(
                "~/.gemini/policies/aipassport.toml",
                "toml",
                """\
[[rule]]
toolName = ["google_web_search", "web_fetch"]
decision = "deny"
priority = 100""",
            ),
            Part(
                SHELL,
                "sh",
                """\
export GOOGLE_GEMINI_BASE_URL=@URL@/proxy
export GEMINI_API_KEY=@TOKEN@
export GEMINI_MODEL=@MODEL@""",
            ),
        ),
        fresh=_ENVIRONMENT,
        also=(
            "Flash and Flash-Lite models and gemini-3-pro-preview, for summaries, compression, the choice of a "
            "model and the detection of loops: grant gemini-*."
        ),
        off="google_web_search and web_fetch (above), unless the grant has the capability web.",
        tried="0.61.0",
    ),
    Client(
        name="opencode",
        title="opencode",
        parts=(
            Part(
                "~/.config/opencode/opencode.json",
                "json",
                """\
{
  "$schema": "https://opencode.ai/config.json",
  "model": "aipassport/@MODEL@",
  "small_model": "aipassport/@MODEL@",
  "provider": {
    "aipassport": {
      "npm": "@ai-sdk/openai-compatible",
      "options": {"baseURL": "@URL@/proxy/v1", "apiKey": "{env:AIPASSPORT_TOKEN}"},
      "models": {"@MODEL@": {}}
    }
  }
}""",
            ),
            Part(SHELL, "sh", "export AIPASSPORT_TOKEN=@TOKEN@"),
        ),
        fresh=_ENVIRONMENT,
        also="small_model for titles.",
        tried="1.18.33",
    ),
    Client(
        name="qwen-code",
        title="Qwen Code",
        parts=(
            Part(
                SHELL,
                "sh",
                """\
export OPENAI_BASE_URL=@URL@/proxy/v1
export OPENAI_API_KEY=@TOKEN@
export OPENAI_MODEL=@MODEL@""",
            ),
        ),
        fresh=_ENVIRONMENT,
        also="the model of the setting fastModel, where one is set; else the same.",
        tried="0.24.4",
    ),
    Client(
        name="aider",
        title="aider",
        parts=(
            Part(
                SHELL,
                "sh",
                """\
export OPENAI_API_BASE=@URL@/proxy/v1
export OPENAI_API_KEY=@TOKEN@
export AIDER_MODEL=openai/@MODEL@
export AIDER_WEAK_MODEL=openai/@MODEL@""",
            ),
        ),
        fresh=_ENVIRONMENT,
        also="AIDER_WEAK_MODEL for commit messages and summaries.",
        tried="0.86.2",
    ),
    Client(
        name="llm",
        title="llm",
        parts=(
            Part(
                "extra-openai-models.yaml, in the folder of `llm logs path`",
                "yaml",
                """\
- model_id: aipassport
  model_name: "@MODEL@"
  api_base: @URL@/proxy/v1
  api_key_name: aipassport""",
            ),
            Part(
                SHELL,
                "sh",
                """\
export OPENAI_API_KEY=@TOKEN@
export LLM_MODEL=aipassport""",
            ),
        ),
        fresh='llm -m aipassport --key "$(aipassport-token)" takes a new one at each call.',
        tried="0.36",
    ),
)
