"""The lines of libraries. See :mod:`grants.clients`."""

from __future__ import annotations

from .client_rows import SHELL, Client, Part

_PYTHON, _NODE = "Python", "Node"

_OPENAI = Part(
    SHELL,
    "sh",
    """\
export OPENAI_BASE_URL=@URL@/proxy/v1
export OPENAI_API_KEY=@TOKEN@""",
)
_ANTHROPIC = Part(
    SHELL,
    "sh",
    """\
unset ANTHROPIC_API_KEY
export ANTHROPIC_BASE_URL=@URL@/proxy
export ANTHROPIC_AUTH_TOKEN=@TOKEN@""",
)
_GOOGLE = Part(
    SHELL,
    "sh",
    """\
export GOOGLE_GEMINI_BASE_URL=@URL@/proxy
export GEMINI_API_KEY=@TOKEN@""",
)
_MAKE_ANEW = "The token is read when the client object is made: make a new one with a new token before it expires."
_ENVIRONMENT = "The environment is read at each call: set OPENAI_API_KEY anew in the process before the token expires."

LIBRARIES = (
    Client(
        name="openai",
        title="openai",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from openai import OpenAI

answer = OpenAI().chat.completions.create(model="@MODEL@", messages=[{"role": "user", "content": "Hello!"}])
print(answer.choices[0].message.content)""",
            ),
            Part(
                _NODE,
                "js",
                """\
import OpenAI from "openai";

const messages = [{ role: "user", content: "Hello!" }];
const answer = await new OpenAI().chat.completions.create({ model: "@MODEL@", messages });
console.log(answer.choices[0].message.content);""",
            ),
        ),
        fresh="Give api_key (Node: apiKey) a function that returns a token: it is called before each request.",
        tried="Python 3.57.0, Node 7.59.0",
    ),
    Client(
        name="anthropic",
        title="anthropic",
        base="/proxy",
        dialect="anthropic",
        parts=(
            _ANTHROPIC,
            Part(
                _PYTHON,
                "python",
                """\
from anthropic import Anthropic

messages = [{"role": "user", "content": "Hello!"}]
print(Anthropic().messages.create(model="@MODEL@", max_tokens=1024, messages=messages).content[0].text)""",
            ),
            Part(
                _NODE,
                "js",
                """\
import Anthropic from "@anthropic-ai/sdk";

const messages = [{ role: "user", content: "Hello!" }];
const answer = await new Anthropic().messages.create({ model: "@MODEL@", max_tokens: 1024, messages });
console.log(answer.content[0].text);""",
            ),
        ),
        fresh=(
            "Python: give credentials a function that returns AccessToken(token, expires_at), from "
            "anthropic.lib.credentials. Node: give apiKey a function that returns a token."
        ),
        tried="Python 2.14.0, Node 1.14.0",
    ),
    Client(
        name="google-genai",
        title="google-genai",
        base="/proxy",
        dialect="google",
        parts=(
            _GOOGLE,
            Part(
                _PYTHON,
                "python",
                """\
from google import genai

client = genai.Client()
print(client.models.generate_content(model="@MODEL@", contents="Hello!").text)""",
            ),
            Part(
                _NODE,
                "js",
                """\
import { GoogleGenAI } from "@google/genai";

const answer = await new GoogleGenAI({}).models.generateContent({ model: "@MODEL@", contents: "Hello!" });
console.log(answer.text);""",
            ),
        ),
        fresh=_MAKE_ANEW,
        off="googleSearch, urlContext and codeExecution, unless the grant has the capabilities web and code.",
        tried="Python 3.6.1, Node 3.3.0",
    ),
    Client(
        name="openai-agents",
        title="OpenAI Agents SDK",
        dialect="openai",
        parts=(
            _OPENAI,
            Part(SHELL, "sh", "export OPENAI_AGENTS_DISABLE_TRACING=1"),
            Part(
                _PYTHON,
                "python",
                """\
from agents import Agent, Runner

agent = Agent(name="Assistant", model="@MODEL@")
print(Runner.run_sync(agent, "Hello!").final_output)""",
            ),
            Part(
                _NODE,
                "js",
                """\
import { Agent, run } from "@openai/agents";

const agent = new Agent({ name: "Assistant", model: "@MODEL@" });
console.log((await run(agent, "Hello!")).finalOutput);""",
            ),
        ),
        fresh=(
            "Python: set_default_openai_client(AsyncOpenAI(api_key=f)). Node: "
            "setDefaultOpenAIClient(new OpenAI({apiKey: f})). f is an async function that returns a token."
        ),
        off=(
            "tracing (above): it sends OPENAI_API_KEY, here your token, to OpenAI. Hosted tools need web or code. "
            "Leave store unset: the broker then asks for the encrypted reasoning that tools need with a model "
            'that reasons. With store=False, add response_include=["reasoning.encrypted_content"] (Node: providerData: '
            '{ include: ["reasoning.encrypted_content"] }).'
        ),
        tried="Python 0.24.0, Node 0.20.0",
    ),
    Client(
        name="langchain",
        title="LangChain",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from langchain_openai import ChatOpenAI

print(ChatOpenAI(model="@MODEL@").invoke("Hello!").text)""",
            ),
            Part(
                _NODE,
                "js",
                """\
import { ChatOpenAI } from "@langchain/openai";

console.log((await new ChatOpenAI({ model: "@MODEL@" }).invoke("Hello!")).text);""",
            ),
        ),
        fresh="Give api_key (Node: apiKey) a function that returns a token.",
        tried="langchain 1.5.2, @langchain/openai 1.6.0",
    ),
    Client(
        name="vercel-ai",
        title="Vercel AI SDK",
        dialect="openai",
        parts=(
            _OPENAI,
            Part(
                _NODE,
                "js",
                """\
import { generateText } from "ai";
import { openai } from "@ai-sdk/openai";

const providerOptions = { openai: { store: false } };
const { text } = await generateText({ model: openai("@MODEL@"), prompt: "Hello!", providerOptions });
console.log(text);""",
            ),
        ),
        fresh="The environment is read at each call: set process.env.OPENAI_API_KEY anew before the token expires.",
        off=(
            "store (above): else it refers to items that were never stored. On a provider that only speaks chat, write "
            "openai.chat(…)."
        ),
        tried="ai 7.0.173, @ai-sdk/openai 4.0.118",
    ),
    Client(
        name="litellm",
        title="LiteLLM",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from litellm import completion

answer = completion(model="openai/@MODEL@", messages=[{"role": "user", "content": "Hello!"}])
print(answer.choices[0].message.content)""",
            ),
        ),
        fresh=_ENVIRONMENT,
        tried="1.110.2",
    ),
    Client(
        name="pydantic-ai",
        title="pydantic-ai",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from pydantic_ai import Agent

print(Agent("openai-chat:@MODEL@").run_sync("Hello!").output)""",
            ),
        ),
        fresh="OpenAIProvider(openai_client=AsyncOpenAI(api_key=f)); f is an async function that returns a token.",
        tried="2.68.0",
    ),
    Client(
        name="haystack",
        title="Haystack",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage

print(OpenAIChatGenerator(model="@MODEL@").run([ChatMessage.from_user("Hello!")])["replies"][0].text)""",
            ),
        ),
        fresh=_MAKE_ANEW,
        tried="3.4.1",
    ),
    Client(
        name="agno",
        title="Agno",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
from agno.agent import Agent
from agno.models.openai import OpenAIChat

print(Agent(model=OpenAIChat(id="@MODEL@")).run("Hello!").content)""",
            ),
        ),
        fresh=_MAKE_ANEW,
        off="stored answers, where OpenAIResponses is used instead: OpenAIResponses(id=…, store=False).",
        tried="3.1.10",
    ),
    Client(
        name="semantic-kernel",
        title="Semantic Kernel",
        parts=(
            _OPENAI,
            Part(
                _PYTHON,
                "python",
                """\
import asyncio

from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

agent = ChatCompletionAgent(name="Assistant", service=OpenAIChatCompletion(ai_model_id="@MODEL@"))
print(asyncio.run(agent.get_response("Hello!")).content)""",
            ),
        ),
        fresh="OpenAIChatCompletion(async_client=AsyncOpenAI(api_key=f)); f is an async function that returns a token.",
        tried="1.45.0",
    ),
)
