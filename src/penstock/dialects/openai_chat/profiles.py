"""The kinds of server that speak OpenAI chat, as data: what a request to each must heed, and how each thinks aloud.

A target's `profile` is a key of `PROFILES`; without one, `DEFAULT` says what nearly every server takes. The facts are
the providers' own documentation and what recorded streams show.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class Profile(Struct, frozen=True, kw_only=True):
    #: the name of the token limit
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    #: takes `stream_options`
    stream_options: bool = True
    #: the name of the seed; None: it has none
    seed: str | None = "seed"
    top_k: bool = True
    penalties: bool = True
    #: higher ones are clamped
    max_temperature: float | None = None
    parallel_tool_calls: bool = True
    user: bool = True
    #: the word for "call some tool"
    required: Literal["required", "any"] = "required"
    #: takes a `tool_choice` at all
    tool_choice: bool = True
    #: a `tool_choice` of `none` is enough; otherwise its template shows the tools all the same
    hides_tools: bool = True
    #: takes a JSON schema for the answer; otherwise it is asked for JSON, and told the schema
    schema: bool = True
    #: how thinking is asked for; None: it cannot be
    reasoning: Literal["effort", "reasoning", "thinking", "enable_thinking", "template"] | None = "effort"
    #: which form of its thoughts a turn of its own comes back with; None: they stay here
    thoughts: Literal["reasoning_content", "reasoning", "parts"] | None = None
    #: `tagged`: thoughts stand in the answer, between <think> and </think>; `begun`: the first tag is left out
    think: Literal["tagged", "begun"] | None = None
    #: content lists of texts must be strings
    flat_content: bool = False
    #: ids of calls must be nine letters or digits
    short_ids: bool = False
    #: fields of every request
    fields: dict[str, Any] = {}


DEFAULT = Profile()

_OPENAI = Profile(limit="max_completion_tokens", top_k=False)
_LOCAL = Profile(thoughts="reasoning_content", think="tagged")

PROFILES: dict[str, Profile] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "github": Profile(top_k=False),
    "openrouter": Profile(reasoning="reasoning"),
    "deepseek": Profile(reasoning="thinking", schema=False, top_k=False),
    "groq": Profile(limit="max_completion_tokens", top_k=False),
    "mistral": Profile(
        seed="random_seed",
        stream_options=False,
        top_k=False,
        user=False,
        required="any",
        thoughts="parts",
        short_ids=True,
    ),
    "xai": Profile(top_k=False),
    "cerebras": Profile(limit="max_completion_tokens", top_k=False, penalties=False),
    "perplexity": Profile(seed=None, parallel_tool_calls=False),
    "together": Profile(think="tagged"),
    "fireworks": Profile(think="tagged"),
    "moonshot": Profile(max_temperature=1.0, schema=False, top_k=False, thoughts="reasoning_content"),
    "dashscope": Profile(reasoning="enable_thinking", thoughts="reasoning_content"),
    "minimax": Profile(think="tagged", thoughts="reasoning_content"),
    "zai": Profile(reasoning="thinking", schema=False, thoughts="reasoning_content"),
    "gemini-openai": Profile(top_k=False),
    "cohere-openai": Profile(parallel_tool_calls=False, user=False),
    "huggingface": Profile(think="tagged"),
    "sambanova": Profile(think="tagged", parallel_tool_calls=False),
    "nvidia": Profile(think="tagged"),
    "deepinfra": Profile(think="tagged"),
    "poe": Profile(top_k=False),
    "nano-gpt": Profile(think="tagged"),
    "chutes": Profile(think="tagged"),
    "synthetic": Profile(think="tagged"),
    "crusoe": Profile(),
    "xiaomi": Profile(reasoning="thinking", thoughts="reasoning_content"),
    "streamlake": Profile(limit="max_completion_tokens"),
    "parasail": Profile(fields={"store": False}),
    "scx": Profile(max_temperature=1.99),
    "publicai": Profile(flat_content=True),
    "sarvam": Profile(),
    "llamacpp": Profile(thoughts="reasoning_content", hides_tools=False),  # seen 2026-11
    "vllm": Profile(thoughts="reasoning", think="tagged"),
    "sglang": Profile(reasoning="template", thoughts="reasoning_content", think="tagged"),
    "lmstudio": _LOCAL,
    "ollama-openai": Profile(top_k=False, user=False, tool_choice=False, parallel_tool_calls=False),
    "think-tagged": Profile(think="tagged"),
    "think-begun": Profile(think="begun"),
}


def profile_of(name: str | None) -> Profile:
    """The profile of that name; the default for none, and for one that only another dialect knows."""
    return PROFILES.get(name or "", DEFAULT)
