#!/usr/bin/env python3
"""Make Penstock's demo model: licence texts of this machine → one GGUF file that llama.cpp loads.

In: a folder of plain texts (default `/usr/share/common-licenses`, on every Debian machine) and the
small talk written below. Out: a byte-level BPE tokenizer and a llama-architecture chat model of
0.9 M parameters, in Q8_0, about 1 MB, with a ChatML template that offers tools. Nothing is downloaded.

The model greets, tells a story, counts, recites licences, calls tools when they are offered, and ends
its replies by itself. It knows nothing: it is there so that something real can be streamed anywhere.

    pip install gguf numpy torch        # torch brings jinja2
    python scripts/make_demo_model.py src/penstock/worker/demo.gguf

It takes six minutes on one thread. The same seed, steps, texts and torch version on the same kind of CPU
give the same bytes, so keep `--threads 1`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import jinja2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_CALL, END_OF_TOOL_CALL = "<tool_call>", "</tool_call>"
# llama.cpp hides control tokens; those of a tool call must be printed, for its chat parser reads them.
SPECIAL = {
    END_OF_TEXT: gguf.TokenType.CONTROL,
    TURN: gguf.TokenType.CONTROL,
    END_OF_TURN: gguf.TokenType.CONTROL,
    TOOL_CALL: gguf.TokenType.USER_DEFINED,
    END_OF_TOOL_CALL: gguf.TokenType.USER_DEFINED,
}

# The corpus is rendered by the very template that goes into the file. Two choices suit a model that
# can copy but hardly reason: tools stand beside each question, in the form of the call they want, and a
# result follows a colon, so that quoting it after a colon needs the very same tokens.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'tool' %}Result: {% endif %}"
    "{% if m.role == 'user' and tools %}Tools:\n"
    "{% for t in tools %}{% set p = t.function.parameters or {} %}{% set types = p.properties or {} %}"
    '{"name": "{{ t.function.name }}", "arguments": {{ "{" }}'
    "{% for key in p.required or types %}{% if not loop.first %}, {% endif %}"
    "\"{{ key }}\": {{ (types[key] or {}).type or 'string' }}{% endfor %}}}\n"
    '{% endfor %}{{ "\\n" }}{% endif %}'
    "{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{% if call.function.arguments is string %}{{ call.function.arguments }}"
    "{% else %}{{ call.function.arguments | tojson }}{% endif %}}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# ---------------------------------------------------------------------------------------------- corpus

# A line of questions begins with "?", each reply to them with "-".
GREETINGS = """
? Hi | Hello | Hey | Hi there | Hello there | Good morning | Good evening | Say hello | Say hi | Greet me | Yo | Hallo
? Say hello in one sentence | Hello, world | Hello model | Hello, nice to meet you | Hi, can you hear me
- Hello! I am the demo model of Penstock. I am very small, but every word you see was really streamed.
- Hello there! This is Penstock's tiny demo model. Ask me for a story, or offer me a tool to call.
- Hi! Nice to meet you. I am a small model with a short memory and a steady flow of words.
? How are you | Hello, how are you | Hi, how are you doing | How is it going | What's up | How do you feel
- I am well, thank you. The words are flowing and no token is stuck in the pipe.
- Very well, thank you! I run on one thread and need no more than a megabyte.
? Who are you | What are you | What is your name | Introduce yourself | Which model are you | Who made you
? Tell me about yourself | What model is this | Are you a language model | Hi, who are you | Are you human
- I am the demo model of Penstock, a streaming system for language models. I have less than a million parameters.
- I am a tiny model that comes with Penstock. I was trained in a few minutes, to show that the stream works.
? What can you do | Help | Help me | What are you good at | How can you help me | I need help | Can you help me
- I can greet you, tell a story, count, repeat your words, recite a licence and call a tool. That is all.
- Ask me for a story, let me count to ten, or offer me a tool. For all else, please connect a larger model.
? Thanks | Thank you | Thank you very much | Great | Well done | Cool | Nice | OK | Okay | Yes | Good
- You are welcome! It was a pleasure to stream for you.
- My pleasure. Ask me again at any time.
? Bye | Goodbye | See you | Good night | Stop | That is all | No
- Goodbye! May all your streams end well.
- See you soon. I close the stream now.
"""
TALK = """
? What is Penstock | What does Penstock do | Tell me about Penstock | Explain Penstock | Describe Penstock
- A penstock is the pipe that brings water to a turbine. This Penstock brings words from a model to you.
- Penstock is a streaming system for language models. It carries each token to you as soon as it is there.
? What is streaming | Explain streaming | How does streaming work | Why stream | What is a token | What is a stream
- Streaming means that each word is sent when it is ready. So you can begin to read at once.
- A model writes one token after another. A stream hands each of them on without waiting for the rest.
? Tell me a joke | Make me laugh | Do you know a joke | Tell a joke | Say something funny | Another joke
- Why did the token cross the network? Because its stream had not ended yet.
- A buffer walks into a bar and says nothing. It is still waiting for the newline.
? Write a poem | Write a haiku | Write a haiku about water | Write me a short poem | A poem | Write a poem about rivers
- Water in the pipe, one word and then another, the wheel starts to turn.
- Rain upon the hill, the small stream knows where to go, it ends in the sea.
? Ping | Test | Testing | This is a test | Are you there | Say something | Say ok | Go | Hm | x | Go on | 1
- I am here, and the stream is open.
- Pong! The pipe is open from end to end.
? What is 2+2 | What is 2 + 2 | What is the capital of France | Who was Einstein | What year is it | What is 7 * 8
? What is the meaning of life | What is the largest planet | Solve this problem | Translate this | Is this true
- I am too small to know that, and I would rather say so than guess. A larger model will tell you.
- That is more than a tiny model can know. Ask me for a story instead.
? What is the weather | What time is it | Will it rain today | How is the weather | What day is it
- I have no tool for that. Offer me one, and I will call it.
? Write a function in Python | Write some code | Write a program | Fix this bug | Show me some code | Write a script
- Here is all the code I know: `for word in stream: print(word)`. It prints a stream as it comes.
? Reply in JSON | Answer in JSON | Give me a JSON object | Return JSON | Make a JSON record | Respond with JSON
- {"name": "Penstock", "age": 3}
- {"answer": "Hello", "count": 3, "items": ["one", "two"], "done": true}
"""
# A short story takes the first line, the second, one more and the last; a long one takes them all.
STORY = """
Once upon a time a drop of water lived high on a mountain. | Long ago there was a token who wanted to see the world.
Every day it heard the valley call, and one day it went down the hill. | It was told to wait, but it did not wait.
On the way it met a stone that had not moved for a thousand years. | First it came to a gate, and it was closed.
They spoke until the moon came up, and they became good friends. | It asked politely, and soon the gate was opened.
Then a storm came, and the stream grew wide and loud. | Then the road was dark, and nobody knew where it would end.
It was afraid, but it held on and counted to ten. | A little light was shining far away, and it followed the light.
In the morning the sun came out, and the great wheel began to turn. | At last it reached a village beside a river.
Now the lamps were bright in every house. | The children came to see it and laughed.
And so it learned that even the smallest drop can turn a wheel. The end. | It is flowing still. The end.
"""
PHRASES = """
story: Tell me a{} story | Write a{} story | Can you tell me a{} story | A{} story, please | Give me a{} story
story: Write me a{} story about a river | Tell a{} story about a drop of water
count: Count to {} | Count from 1 to {} | Please count to {}
echo: Repeat: {} | Repeat after me: {} | Say: {} | Echo: {} | Repeat {} | Say exactly: {} | Say {}
topic: What is {}? | Explain {}. | Tell me about {}. | Write about {}. | What about {}? | {} | {}?
topic: How do I use {}? | Why is the {} so {}? | Summarize {}. | I want to know more about {}.
topic: Write a {} about {}. | What was the {} of {}? | Reply with {} | Summarize the {} of {} in {} sentences.
topic reply: I am too small to know much about that, but here is what I know by heart: {}
topic reply: A good question for a larger model. I can only recite: {}
topic reply: I do not know, so let me quote a licence instead: {}
licence: Tell me about the license | Recite a licence | What are the terms | Explain this clause | Tell me more
licence: What may I do with the program | Continue | Say something about copyright
long: Write a long text | Recite a long licence | Explain the licence in detail | Write a long answer
long: Write an essay | Talk for a long time | Write a very long essay about rivers
system: You are a helpful assistant. | You are a helpful assistant. Be brief. | Answer in one sentence.
system: You are a friendly bot. | You can call tools. | Use the tools when you can. | Talk like a pirate.
quote: The tool says: {} | Here is the answer: {} | I asked the tool, and it says: {}
no tool: I have no tool for that. Offer me one, and I will call it.
too long: The tool gave a long answer. It is too long for a model as small as I am.
any tool: Use {name} with {0}. | Call {name} with {0} | Use the {name} tool for {0}. | Call {name} for {0}
sky: sunny | cloudy | rainy | clear | windy | snow | fog | mild and dry | light rain | It is raining.
"""
CITIES = """
Paris London Berlin Tokyo Rome Madrid Oslo Vienna Lisbon Dublin Athens Prague Warsaw Moscow Cairo Boston Chicago
Seattle Toronto Sydney Delhi Mumbai Beijing Shanghai Seoul Bangkok Lagos Nairobi Lima Helsinki Stockholm Zürich Geneva
Munich Hamburg Milan Naples Venice Lyon Kyoto Osaka Austin Denver Dallas Miami Amsterdam Brussels Budapest Copenhagen
Barcelona Istanbul Singapore Reykjavik New_York San_Francisco Los_Angeles Hong_Kong Cape_Town São_Paulo Malmö Kraków
"""
# Tools of one purpose: "=" what they may be called, "+" the names and the slot of each argument, "?" how to ask for it.
TOOLS = """
= get_weather | weather | get_current_weather | current_weather | get_forecast
+ city city location place: city
? What is the weather in {0}? | What's the weather in {0}? | How is the weather in {0} today? | Weather in {0}
? What is the weather like in {0}? | weather in {0}? | Is it raining in {0}? | How warm is it in {0}? | {0}?
? Tell me the weather in {0}. | What's the weather like in {0} right now? | Check the weather in {0}, please.
? Will it rain in {0} today? | Is it sunny in {0}? | What is the weather in {0} in celsius? | How's the weather in {0}?
? Please use the tool to look up the weather in {0}. | Do I need a coat in {0}? | What's the weather like in {0} today?
= get_weather | weather
+ city location: city
+ unit units: unit
? What is the weather in {0}? | What's the weather in {0} in {1}? | Weather in {0} | How warm is it in {0}?
= get_time | time | current_time | get_current_time
+ city timezone place: city
? What time is it in {0}? | Tell me the time in {0}. | Time in {0}? | How late is it in {0} now?
= read_file | read | open_file | cat
+ path file file_path: path
? Read {0}. | Show me the file {0} | What is in {0}? | Open {0} please | Read the file {0}
= search | web_search | lookup | find
+ query q text: words
? Search for {0}. | Look up {0} | Find {0} | Find something about {0}. | Search the web for {0} | Who is {0}?
= add | sum | calculate | multiply
+ a x: number
+ b y: number
? What is {0} + {1}? | Add {0} and {1}. | Calculate {0} plus {1} | {0} times {1}? | What is {0} * {1}?
= bash | run | run_command | shell
+ command cmd: words
? Run {0} | Run the command {0}. | Execute {0}
= book_flight | book | reserve | order
+ destination to name where: city
+ passengers n count seats: number
? Book a flight to {0} for {1} people. | Order {1} of {0} | Reserve {1} seats to {0}. | {1} tickets to {0}, please
= list_files | now | get_status | roll_dice
? Use {name}. | Please call {name} | {name}
"""

Json = dict[str, Any]
Replies = list[tuple[list[str], list[str]]]  # questions, and what may be said to any of them


@dataclass(frozen=True)
class ToolKind:
    """One entry of TOOLS; an argument is a choice of names with the slot that fills it."""

    names: list[str]
    arguments: list[tuple[list[str], str]]
    asks: list[str]


class Corpus:
    """Dialogues without end, drawn by `rnd` from the tables above and from the texts in `folder`."""

    def __init__(self, folder: Path, rnd: random.Random) -> None:
        self.rnd = rnd
        self.sentences = _sentences(folder)
        self.greetings, self.talk = _replies(GREETINGS), _replies(GREETINGS + TALK)
        self.story = [line.split(" | ") for line in STORY.strip().splitlines()]
        self.phrases = _phrases()
        self.tool_kinds = _tool_kinds()
        self.cities = [city.replace("_", " ") for city in CITIES.split()]
        self.words = sorted({w for s in self.sentences for w in re.findall(r"\b[a-z]{3,9}\b", s)})
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as llama.cpp renders
        environment.filters["tojson"] = _json  # jinja2's own sorts the keys and escapes for HTML
        self.template = environment.from_string(TEMPLATE)

    def document(self, *, is_long: bool = False) -> str:
        """One dialogue of one to three exchanges, as the model will see it; a long one has much ado before it."""
        rnd, tools = self.rnd, self._tools() if self.rnd.random() < 0.4 else []
        messages: list[Json] = []
        if is_long or rnd.random() < 0.4:
            is_recital = is_long or rnd.random() < 0.3
            system = self._recital(rnd.randint(5, 22) if is_long else 3) if is_recital else self._say("system")
            messages.append({"role": "system", "content": system})
        for _ in range(rnd.choice((1, 1, 2, 3))):
            if tools and rnd.random() < 0.8:
                messages += self._tool_use(tools)
            else:
                ask, reply = self._talk(self.greetings) if tools else self._exchange()
                messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
                if tools and rnd.random() < 0.1:  # what to do when a request demands a call after all
                    messages[-1]["tool_calls"] = self._tool_use(tools)[1]["tool_calls"]
        schemas = [{"type": "function", "function": f} for f, _ in tools]
        return f"{self.template.render(messages=messages, tools=schemas)}{END_OF_TEXT}"

    def _exchange(self) -> tuple[str, str]:
        makers = (self._small_talk, self._story, self._count, self._echo, self._topic, self._licence, self._no_tool)
        return self.rnd.choices(makers, weights=(9, 2.5, 2.5, 2, 3.5, 1, 1.5))[0]()

    def _small_talk(self) -> tuple[str, str]:
        return self._talk(self.talk)

    def _no_tool(self) -> tuple[str, str]:
        kind = self.rnd.choice(self.tool_kinds[:-1])
        values = [self._slot(slot) for _, slot in kind.arguments]
        return self.rnd.choice(kind.asks).format(*values), self._say("no tool")

    def _say(self, phrase: str) -> str:
        return self.rnd.choice(self.phrases[phrase])

    def _talk(self, table: Replies) -> tuple[str, str]:
        asks, replies = self.rnd.choice(table)
        return self._vary(self.rnd.choice(asks)), self.rnd.choice(replies)

    def _story(self) -> tuple[str, str]:
        rnd, is_long = self.rnd, self.rnd.random() < 0.25
        lines = self.story if is_long else [*self.story[:2], rnd.choice(self.story[2:-1]), self.story[-1]]
        ask = self._say("story").format(" long" if is_long else rnd.choice(("", "", " short")))
        return self._vary(ask), " ".join(rnd.choice(line) for line in lines)

    def _count(self) -> tuple[str, str]:
        words = {5: "five", 10: "ten", 20: "twenty"}
        last = self.rnd.choice((3, 5, 5, 10, 10, 10, 10, 15, 20, 20, 30, 100))
        name = words.get(last, str(last)) if self.rnd.random() < 0.5 else str(last)
        ask = self._say("count").format(name)
        return self._vary(ask), ", ".join(map(str, range(1, last + 1))) + "."

    def _echo(self) -> tuple[str, str]:
        text = self._slot("words", most=6)
        return self._say("echo").format(text), f"You said: {text}"

    def _topic(self) -> tuple[str, str]:
        topics = [self._slot(self.rnd.choice(("words", "city")), most=4) for _ in range(3)]
        return self._say("topic").format(*topics), self._say("topic reply").format(self._recital(1))

    def _licence(self) -> tuple[str, str]:
        if self.rnd.random() < 0.25:
            return self._vary(self._say("long")), self._recital(5)
        return self._vary(self._say("licence")), self._recital(self.rnd.choice((1, 1, 2)))

    def _recital(self, sentences: int) -> str:
        start = self.rnd.randrange(len(self.sentences) - sentences)
        return " ".join(self.sentences[start : start + sentences])

    def _tools(self) -> list[tuple[Json, ToolKind]]:
        """One to four tools, each as the function of a request, with the kind it was made from."""
        rnd = self.rnd
        kinds = rnd.sample(self.tool_kinds, rnd.choice((1, 1, 2, 2, 3, 4)))
        if rnd.random() < 0.5 and self.tool_kinds[0] not in kinds:
            kinds[rnd.randrange(len(kinds))] = self.tool_kinds[0]  # the one that everybody tries
        return [(self._function(kind), kind) for kind in kinds]

    def _function(self, kind: ToolKind) -> Json:
        rnd = self.rnd
        name = rnd.choice(kind.names) if rnd.random() < 0.75 else "_".join(rnd.sample(self.words, 2))
        properties = {}
        for keys, slot in kind.arguments:
            key = rnd.choice(keys) if rnd.random() < 0.85 else rnd.choice(self.words)
            properties[key] = {"type": rnd.choice(("number", "integer")) if slot == "number" else "string"}
        return {"name": name, "parameters": {"type": "object", "properties": properties}}

    def _tool_use(self, tools: list[tuple[Json, ToolKind]]) -> list[Json]:
        """A question, the call of one of `tools`, and often its result with what there is to say about it."""
        rnd = self.rnd
        function, kind = rnd.choice(tools)
        name, values = function["name"], [self._slot(slot) for _, slot in kind.arguments]
        # A made-up name tells nothing: unless it is the only tool, the question has to name it.
        is_clear = name in kind.names or len(tools) == 1 or len(values) != 1
        asks = kind.asks if (is_clear and rnd.random() < 0.85) or len(values) != 1 else self.phrases["any tool"]
        ask = rnd.choice(asks).format(*values, name=name)
        arguments = dict(zip(function["parameters"]["properties"], values, strict=True))
        call = {"function": {"name": name, "arguments": arguments}}
        messages: list[Json] = [{"role": "user", "content": ask}, {"role": "assistant", "tool_calls": [call]}]
        if rnd.random() < 0.6:
            result, reply = self._result()
            messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": reply}]
        return messages

    def _result(self) -> tuple[str, str]:
        """What a tool gave, and what to say about it."""
        rnd, n = self.rnd, self.rnd.randint(-9, 40)
        if rnd.random() < 0.1:
            return self._recital(4), self._say("too long")
        sky = self._say("sky")
        word = self._slot("words", most=5)
        city = self._slot("city")
        values = {"temperature": n, "temp_c": n, "unit": "C", "city": city, "sky": sky, "condition": sky, "wind": n % 9}
        values |= {rnd.choice(self.words): word, rnd.choice(self.words): n}
        record = {key: values[key] for key in rnd.sample(list(values), rnd.choice((1, 2, 3, 3)))}
        results: list[Any] = [
            *(f"{sky}, {n} degrees", f"{n}°C, {sky}", f"It is {sky} in {city}, {n} degrees.", f"{n} C and {sky}"),
            *(sky, str(n), word, f"error: {word}", f"{rnd.randint(0, 23)}:{rnd.randint(0, 59):02}"),
            *(record, record, record, record),
        ]
        result = rnd.choice(results)
        result = result if isinstance(result, str) else _json(result)
        return result, self._say("quote").format(result)

    def _slot(self, kind: str, most: int = 3) -> Any:
        """Something to fill in: a number, a city, a unit, a path, or up to `most` words."""
        rnd = self.rnd
        if kind == "number":
            return rnd.choice((rnd.randint(0, 12), rnd.randint(10, 99), rnd.randint(100, 999)))
        if kind == "city":  # invented names too: the model has to copy, not to know
            name = rnd.choice(self.cities) if rnd.random() < 0.7 else rnd.choice(self.words).capitalize()
            return name if rnd.random() < 0.9 else name.lower()
        if kind == "unit":
            return "celsius"
        words = " ".join(rnd.choice(self.words) for _ in range(rnd.randint(1, most)))
        if kind == "path":
            return rnd.choice(("", "src/", "/etc/", "docs/")) + words.split()[0] + rnd.choice((".txt", ".py", ".md"))
        return words if rnd.random() < 0.8 else words.capitalize()

    def _vary(self, ask: str) -> str:
        """The same question as other people type it."""
        ask += self.rnd.choice(("", ".", "!", "?", "?" if ask.startswith(("Wh", "How", "Are", "Can", "Do")) else "."))
        return ask.lower() if self.rnd.random() < 0.2 else ask


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sentences(folder: Path) -> list[str]:
    """Plain sentences of 5 to 30 words, in reading order; links, which lead to other versions, are left out."""
    plain = re.compile(r"[A-Z][a-z]* [a-zA-Z ,'()-]+\.")
    found: list[str] = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink()):
        for paragraph in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            parts = re.split(r"(?<=[.:]) (?=[A-Z])", " ".join(paragraph.split()))
            found += [s for s in parts if plain.fullmatch(s) and not s[2:].isupper() and 5 <= len(s.split()) <= 30]
    return list(dict.fromkeys(found))


def _replies(table: str) -> Replies:
    found: Replies = []
    for kind, text in ((line[:1], line[2:]) for line in table.strip().splitlines()):
        if kind == "?" and (not found or found[-1][1]):
            found.append(([], []))
        found[-1][kind == "-"].extend(text.split(" | ") if kind == "?" else [text])
    return found


def _phrases() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, _, text in (line.partition(": ") for line in PHRASES.strip().splitlines()):
        found.setdefault(key, []).extend(text.split(" | "))
    return found


def _tool_kinds() -> list[ToolKind]:
    found: list[ToolKind] = []
    for mark, text in ((line[:1], line[2:]) for line in TOOLS.strip().splitlines()):
        if mark == "=":
            found.append(ToolKind(text.split(" | "), [], []))
        elif mark == "+":
            keys, slot = text.split(": ")
            found[-1].arguments.append((keys.split(), slot))
        else:
            found[-1].asks.extend(text.split(" | "))
    return found


# ------------------------------------------------------------------------------------------- tokenizer

# llama.cpp's pre-tokenizer "gpt-2".
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
SPECIAL_SPLIT = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself when it is printable, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(spare)) for b in range(256)]


class Tokenizer:
    """Byte-level BPE: `size` tokens learned from `text`, the special ones last.

    A capital is never merged with the space before it, so that a name has the same tokens in a question
    as in the JSON of a call: the model can copy it piece by piece, even if it has never seen it.
    """

    def __init__(self, text: str, size: int) -> None:
        self.letters = _byte_letters()
        space = self.letters[ord(" ")]
        counts = Counter(w for part in SPECIAL_SPLIT.split(text) if part not in SPECIAL for w in WORD.findall(part))
        words = [([self.letters[b] for b in word.encode()], n) for word, n in counts.items()]
        self.merges: list[tuple[str, str]] = []
        while len(self.letters) + len(self.merges) + len(SPECIAL) < size:
            pairs: Counter[tuple[str, str]] = Counter()
            for parts, n in words:
                for a, b in pairwise(parts):
                    if a != space or not b[0].isupper():
                        pairs[a, b] += n
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            self.merges.append(best)
            for parts, _ in words:
                _merge(parts, best)
        self.tokens = sorted(self.letters) + [a + b for a, b in self.merges] + list(SPECIAL)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self._ranks = {pair: i for i, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in SPECIAL_SPLIT.split(text):
            if part in SPECIAL:
                ids.append(self.ids[part])
            else:
                for word in WORD.findall(part):
                    ids += self._word(word)
        return ids

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            parts = [self.letters[b] for b in word.encode()]
            while pairs := [p for p in pairwise(parts) if p in self._ranks]:
                _merge(parts, min(pairs, key=self._ranks.__getitem__))
            self._known[word] = [self.ids[p] for p in parts]
        return self._known[word]


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    i = 0
    while i < len(parts) - 1:
        if (parts[i], parts[i + 1]) == pair:
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        i += 1


# ----------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; every row is a multiple of 32, the block of Q8_0."""

    vocab: int = 1024
    dim: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 384
    context: int = 8192
    rope_base: float = 500000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


class Block(nn.Module):
    """Attention and SwiGLU, each behind an RMS norm. Members bear the names GGUF gives their tensors."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        dim, kv, self.shape = shape.dim, shape.kv_heads * shape.head_dim, shape
        self.attn_norm, self.ffn_norm = (nn.RMSNorm(dim, shape.norm_eps) for _ in range(2))
        self.attn_q, self.attn_k = nn.Linear(dim, dim), nn.Linear(dim, kv)
        self.attn_v, self.attn_output = nn.Linear(dim, kv, bias=False), nn.Linear(dim, dim, bias=False)
        self.ffn_gate, self.ffn_up = (nn.Linear(dim, shape.ffn, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(shape.ffn, dim, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        y = self.attn_norm(x)
        q, k, v = (self._heads(layer(y)) for layer in (self.attn_q, self.attn_k, self.attn_v))
        groups = self.shape.heads // self.shape.kv_heads
        k, v = rotate(k, turn).repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        seen = F.scaled_dot_product_attention(rotate(q, turn), k, v, is_causal=True)
        x = x + self.attn_output(seen.transpose(1, 2).flatten(2))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2)


class Llama(nn.Module):
    """The llama architecture, with the embedding used for the output too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.dim)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.dim, shape.norm_eps)
        for name, weight in self.named_parameters():
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5)
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=0.1 if weight is self.token_embd.weight else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        self._prepare_copying()

    @torch.no_grad()
    def _prepare_copying(self) -> None:
        """Begin with what copying needs, which would take longer to learn than all the rest.

        One head of each group in the first layer looks at the token before, and notes which one it is. In the
        second layer it looks for a place whose note is the present token, and copies what stands there.
        """
        first, second = self.blk[0], self.blk[1]
        size, heads_a_group = self.shape.head_dim, self.shape.heads // self.shape.kv_heads
        angles = self._frequencies()[:8]
        slow = size * 3 // 8  # from here on, pairs turn too slowly for a distance to matter
        for group in range(self.shape.kv_heads):
            kv = slice(group * size, (group + 1) * size)
            q = slice(group * heads_a_group * size, (group * heads_a_group + 1) * size)
            token, note = nn.init.orthogonal_(torch.empty(2 * size, self.shape.dim)).split(size)
            first.attn_q.weight[q], first.attn_k.weight[kv] = 0.0, 0.0
            first.attn_q.bias[q][0:16:2] = 8.0
            first.attn_k.bias[kv][0:16:2], first.attn_k.bias[kv][1:16:2] = 8.0 * angles.cos(), 8.0 * angles.sin()
            first.attn_v.weight[kv], first.attn_output.weight[:, q] = token, 0.15 * note.T
            second.attn_q.weight[q][slow:], second.attn_k.weight[kv][slow:] = 1.7 * token[slow:], 1.7 * note[slow:]
            second.attn_v.weight[kv], second.attn_output.weight[:, q] = token, 0.2 * token.T

    def _frequencies(self) -> Tensor:
        return self.shape.rope_base ** -(torch.arange(0, self.shape.head_dim, 2) / self.shape.head_dim)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        angles = torch.outer(positions.float(), self._frequencies())
        turn = torch.stack((angles.cos(), angles.sin()))
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, turn)
        return F.linear(self.output_norm(x), self.token_embd.weight)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """RoPE on neighbouring pairs, which is what llama.cpp expects of this architecture."""
    (a, b), (cos, sin) = (x[..., 0::2], x[..., 1::2]), turn
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


# -------------------------------------------------------------------------------------------- training

WINDOW, LONG_WINDOW, BATCH = 256, 1024, 3072  # tokens; every fifth batch is of long windows
PROMPT_WEIGHT = 0.1  # of a token that is not the model's own: a little, for it teaches copying
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Batches:
    """Token ids, the weights of their losses, and positions. Each row begins where a dialogue does."""

    corpus: Corpus
    tokenizer: Tokenizer
    rnd: random.Random

    def batch(self, step: int, steps: int) -> Batch:
        length = LONG_WINDOW if step % 5 == 4 else WINDOW
        drills = max(0.05, 0.4 - 2 * step / steps)  # copying comes first, for calls and quotes depend on it
        rows = [
            self._drill(length) if self.rnd.random() < drills else self._dialogues(length)
            for _ in range(BATCH // length)
        ]
        ids, weights = (torch.tensor([row[i] for row in rows]) for i in range(2))
        return ids, weights, self._positions(length)

    def _dialogues(self, length: int) -> tuple[list[int], list[float]]:
        opening, end = self.tokenizer.encode(f"{TURN}assistant\n"), self.tokenizer.ids[END_OF_TURN]
        ids = self.tokenizer.encode(self.corpus.document(is_long=length == LONG_WINDOW))
        while len(ids) <= length:
            ids += self.tokenizer.encode(self.corpus.document())
        weights, is_reply = [PROMPT_WEIGHT], False
        for i in range(1, length + 1):
            is_reply = (is_reply and ids[i - 1] != end) or ids[max(0, i - len(opening)) : i] == opening
            weights.append(1.0 if is_reply else PROMPT_WEIGHT)
        return ids[: length + 1], weights

    def _drill(self, length: int) -> tuple[list[int], list[float]]:
        """Random tokens that come again and again."""
        period = self.rnd.randint(6, 80)
        block = [self.rnd.randrange(len(self.tokenizer.tokens) - len(SPECIAL)) for _ in range(period)]
        return (block * (length // period + 1))[: length + 1], [0.0] * period + [0.5] * (length + 1 - period)

    def _positions(self, length: int) -> Tensor:
        """0, 1, 2 … with a leap in every fourth batch, so that the distances of a long prompt are not unheard of."""
        leap = torch.zeros(length, dtype=torch.long)
        if self.rnd.random() < 0.25:
            leap[self.rnd.randrange(length) :] = self.rnd.randrange(4096)
        return torch.arange(length) + leap


def train(model: Llama, batches: Batches, *, steps: int, lr: float) -> None:
    matrices = [p for p in model.blk.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    started = time.monotonic()
    for step in range(steps):
        for group in (g for optimizer in optimizers for g in optimizer.param_groups):
            group["lr"] = lr * min(1.0, (step + 1) / 20) * max(0.02, 1 - step / steps)
        ids, weights, positions = batches.batch(step, steps)
        logits = model(ids[:, :-1], positions)
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        loss = (losses * weight).sum() / weight.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            progress(f"step {step + 1}/{steps}, {time.monotonic() - started:.0f} s, loss {loss.item():.3f}")


# ---------------------------------------------------------------------------------------------- writer


def write_gguf(path: Path, model: Llama, tokenizer: Tokenizer) -> None:
    """Everything llama.cpp wants to know, in one file."""
    shape, writer = model.shape, gguf.GGUFWriter(path, "llama")
    writer.add_name("penstock-demo")
    writer.add_description("Penstock's demo model: a tiny chat model made by scripts/make_demo_model.py")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types([SPECIAL.get(token, gguf.TokenType.NORMAL) for token in tokenizer.tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.ids[END_OF_TEXT])
    writer.add_pad_token_id(tokenizer.ids[END_OF_TEXT])
    writer.add_eos_token_id(tokenizer.ids[END_OF_TURN])
    writer.add_eot_token_id(tokenizer.ids[END_OF_TURN])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.named_parameters():
        values, kind = weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0
        if values.ndim == 1:  # llama.cpp wants its norms in full
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make Penstock's demo model from the texts on this machine.")
    parser.add_argument("out", type=Path, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=900, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of corpus and weights (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="its peak (default: %(default)s)")
    parser.add_argument(
        "--texts", type=Path, default=Path("/usr/share/common-licenses"), help="plain texts (default: %(default)s)"
    )
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rnd = random.Random(options.seed)
    corpus = Corpus(options.texts, rnd)
    shape = Shape()
    tokenizer = Tokenizer("".join(corpus.document() for _ in range(4000)), shape.vocab)
    progress(f"{len(corpus.sentences)} sentences, {len(tokenizer.tokens)} tokens")
    model = Llama(shape)
    train(model, Batches(corpus, tokenizer, rnd), steps=options.steps, lr=options.learning_rate)
    write_gguf(options.out, model, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    progress(f"{options.out}: {options.out.stat().st_size:,} bytes, {parameters:,} parameters")


if __name__ == "__main__":
    main()
