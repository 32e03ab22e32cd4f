"""An incremental JSON reader: pieces of text → what is certain of the value so far.

Certain is what no further text can change: numbers and literals when they are complete, strings as they grow, objects
and arrays member by member. With a schema, a string that can only be one of some words, or has a form (`enum`, `const`,
`format`, `pattern`), is held back until it is complete, because half of a word is another word.

Each character is looked at once. A value handed out never changes afterwards: what is still open is copied, what is
closed is shared. Copies are made at most as often as the text has grown by a part of their size, so that the whole
stays linear in the length. Pure. Text that is no JSON stops the reader (`error`); what it had read before stays. A
fence of Markdown round the value is passed over.
"""

from __future__ import annotations

import re
from typing import Any, Final

Schema = dict[str, Any]

MAX_DEPTH: Final = 256
#: the size of a copy per character of text that came since the last
_COPIED_PER_CHARACTER: Final = 64
#: characters that are copied in the time of one member
_CHARACTERS_PER_MEMBER: Final = 16

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ATOM = re.compile(r"[-+.0-9a-zA-Z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None}
_HELD = ("enum", "const", "format", "pattern")

#: what is expected next
_START, _FENCE, _VALUE, _ITEM, _NAME, _NEXT_NAME, _COLON, _NEXT, _STRING, _ATOMIC, _DONE = range(11)


class _Malformed(Exception):
    pass


class Place:
    """Where in a schema a value stands: every schema that may hold there."""

    __slots__ = ("_known", "_nodes", "_root", "holds")

    def __init__(self, root: Schema, *nodes: Any) -> None:
        self._root = root
        self._nodes: list[Schema] = []
        for node in nodes:
            self._add(node)
        self._known: dict[str | int, Place] = {}
        self.holds = any(word in node for node in self._nodes for word in _HELD)

    def _add(self, node: Any) -> None:
        if not isinstance(node, dict) or any(node is known for known in self._nodes):
            return
        self._nodes.append(node)
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            target: Any = self._root
            for step in reference.lstrip("#/").split("/") if len(reference) > 1 else ():
                target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
            self._add(target)
        for word in ("anyOf", "oneOf", "allOf"):
            for each in node.get(word) or ():
                self._add(each)

    def member(self, name: str) -> Place:
        return self._found(
            name, [node.get("properties", {}).get(name, node.get("additionalProperties")) for node in self._nodes]
        )

    def item(self, k: int) -> Place:
        firsts = max((len(node.get("prefixItems", ())) for node in self._nodes), default=0)
        k = min(k, firsts)  # those beyond are all alike
        nodes = []
        for node in self._nodes:
            first = node.get("prefixItems", ())
            nodes.append(first[k] if k < len(first) else node.get("items"))
        return self._found(k, nodes)

    def _found(self, key: str | int, nodes: list[Any]) -> Place:
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = Place(self._root, *nodes)
        return place


class _Open:
    """An object or an array that is not closed, and the name of the member that comes or came last."""

    __slots__ = ("container", "name", "place")

    def __init__(self, container: Any, place: Place) -> None:
        self.container = container
        self.place = place
        self.name = ""

    def put(self, value: Any) -> None:
        if type(self.container) is dict:
            self.container[self.name] = value
        else:
            self.container.append(value)

    def replace(self, container: Any, value: Any) -> None:
        """The member that came last is `value`; `container` is ours or a copy of it."""
        container[self.name if type(container) is dict else -1] = value

    def inner(self) -> Place:
        """Where the next value stands."""
        if type(self.container) is dict:
            return self.place.member(self.name)
        return self.place.item(len(self.container))


class JsonReader:
    """`feed` any pieces, `close` at the end; `changes` counts what has become certain, `snapshot` is all of it."""

    def __init__(self, schema: Schema | None = None) -> None:
        self.error: str | None = None
        self.changes = 0
        root = schema or {}
        self._place = Place(root, root)
        self._mode = _START
        self._outermost: list[Any] = []  # the value itself, once it has begun
        self._stack: list[_Open] = []
        self._pieces: list[str] = []
        self._escape = ""
        self._high = ""
        self._length = 0  # of the open string
        self._is_name = False
        self._is_shown = False
        self._is_fenced = False

    @property
    def is_whole(self) -> bool:
        return self._mode == _DONE and self.error is None

    @property
    def has_value(self) -> bool:
        return bool(self._outermost)

    @property
    def size(self) -> int:
        """What a snapshot costs, in members."""
        return 1 + self._length // _CHARACTERS_PER_MEMBER + sum(len(each.container) for each in self._stack)

    def feed(self, text: str) -> None:
        if self.error is not None:
            return
        at = 0
        try:
            while at < len(text):
                at = self._step(text, at)
        except _Malformed as error:
            self.error = str(error)

    def close(self) -> None:
        """No more text comes: a number that nothing follows is complete."""
        if self._mode == _ATOMIC and not self._stack and self.error is None:
            try:
                self._end_atom()
            except _Malformed as error:
                self.error = str(error)
        if self.error is None and self._mode != _DONE:
            self.error = "the text ends inside the value"

    def snapshot(self) -> Any:
        """What is certain. Raises `LookupError` while nothing is."""
        is_in_string = self._mode == _STRING and self._is_shown
        if not is_in_string and not self._stack:
            return self._outermost[0]
        opened = self._stack if is_in_string else self._stack[:-1]
        value: Any = self._joined() if is_in_string else self._stack[-1].container.copy()
        # Each open container holds one that is open too, or the string: it is copied with that in its place.
        for each in reversed(opened):
            container = each.container.copy()
            each.replace(container, value)
            value = container
        return value

    # --- reading ----------------------------------------------------------------------------------------------------

    def _step(self, text: str, at: int) -> int:
        """Read something at `at`; the place after it."""
        mode = self._mode
        if mode == _STRING:
            return self._in_string(text, at)
        if mode == _ATOMIC:
            return self._in_atom(text, at)
        if mode == _FENCE:
            end = text.find("\n", at)
            if end < 0:
                return len(text)
            self._mode = _VALUE
            return end + 1
        found = _SPACE.match(text, at)
        assert found is not None
        at = found.end()
        if at == len(text):
            return at
        self._read(mode, text[at])
        return at if self._mode == _ATOMIC else at + 1

    def _read(self, mode: int, char: str) -> None:
        if mode == _START:
            if char == "\ufeff":
                return
            if char == "`":
                self._mode, self._is_fenced = _FENCE, True
                return
            mode = _VALUE
        if mode in (_ITEM, _NAME) and char == ("]" if mode == _ITEM else "}"):
            self._end_container()
        elif mode in (_VALUE, _ITEM):
            self._begin_value(char)
        elif mode in (_NAME, _NEXT_NAME) and char == '"':
            self._is_name = True
            self._begin_string(is_shown=False)
        elif mode == _COLON and char == ":":
            self._mode = _VALUE
        elif mode == _NEXT and char == ",":
            self._mode = _NEXT_NAME if type(self._stack[-1].container) is dict else _VALUE
        elif mode == _NEXT and char == ("}" if type(self._stack[-1].container) is dict else "]"):
            self._end_container()
        elif not (mode == _DONE and self._is_fenced and char == "`"):
            raise _Malformed("there is something after the value" if mode == _DONE else "the text is no JSON")

    def _begin_value(self, char: str) -> None:
        place = self._stack[-1].inner() if self._stack else self._place
        if char in "{[":
            if len(self._stack) == MAX_DEPTH:
                raise _Malformed(f"the value is nested more than {MAX_DEPTH} levels deep")
            container: Any = {} if char == "{" else []
            self._put(container)
            self._stack.append(_Open(container, place))
            self._mode = _NAME if char == "{" else _ITEM
        elif char == '"':
            self._is_name = False
            self._begin_string(is_shown=not place.holds)
            if self._is_shown:
                self._put("")
        else:
            self._pieces = []
            self._mode = _ATOMIC

    def _put(self, value: Any) -> None:
        self.changes += 1
        if self._stack:
            self._stack[-1].put(value)
        else:
            self._outermost.append(value)

    def _end_container(self) -> None:
        self._stack.pop()
        self._end_value()

    def _end_value(self) -> None:
        self._mode = _NEXT if self._stack else _DONE

    # --- strings ----------------------------------------------------------------------------------------------------

    def _begin_string(self, *, is_shown: bool) -> None:
        self._pieces, self._length = [], 0
        self._is_shown = is_shown
        self._mode = _STRING

    def _in_string(self, text: str, at: int) -> int:
        if self._escape:
            return self._in_escape(text, at)
        found = _PLAIN.match(text, at)
        assert found is not None
        if found.end() > at:
            self._say(found[0])
            return found.end()
        if text[at] == "\\":
            self._escape = "\\"
        elif text[at] == '"':
            self._end_string()
        else:
            raise _Malformed("a string holds a control character")
        return at + 1

    def _in_escape(self, text: str, at: int) -> int:
        if self._escape == "\\" and text[at] != "u":
            if text[at] not in _ESCAPES:
                raise _Malformed("a string holds an unknown escape")
            self._escape = ""
            self._say(_ESCAPES[text[at]])
            return at + 1
        end = at + 6 - len(self._escape)
        self._escape += text[at:end]
        if len(self._escape) == 6:
            self._end_unicode(self._escape[2:])
            self._escape = ""
        return min(end, len(text))

    def _end_unicode(self, digits: str) -> None:
        if not _HEX.fullmatch(digits):
            raise _Malformed("a string holds an unknown escape")
        char = chr(int(digits, 16))
        if self._high and "\udc00" <= char <= "\udfff":
            char = (self._high + char).encode("utf-16-be", "surrogatepass").decode("utf-16-be")
            self._high = ""
            self._say(char)
        elif "\ud800" <= char <= "\udbff" and not self._high:
            self._high = char
        elif "\ud800" <= char <= "\udfff":
            raise _Malformed("a string holds half of a surrogate pair")
        else:
            self._say(char)

    def _say(self, piece: str) -> None:
        if self._high:
            raise _Malformed("a string holds half of a surrogate pair")
        self._pieces.append(piece)
        self._length += len(piece)
        if self._is_shown:
            self.changes += 1

    def _joined(self) -> str:
        if len(self._pieces) != 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _end_string(self) -> None:
        if self._high:
            raise _Malformed("a string holds half of a surrogate pair")
        text = self._joined()
        self._length = 0
        if self._is_name:
            self._stack[-1].name = text
            self._mode = _COLON
            return
        if not self._is_shown:
            self._put(text)
        elif self._stack:
            self._stack[-1].replace(self._stack[-1].container, text)
        else:
            self._outermost[0] = text
        self._end_value()

    # --- numbers and literals ---------------------------------------------------------------------------------------

    def _in_atom(self, text: str, at: int) -> int:
        found = _ATOM.match(text, at)
        assert found is not None
        self._pieces.append(found[0])
        if found.end() < len(text):
            self._end_atom()
        elif found[0][-1:].isalpha() and len(self._pieces) <= 5 and "".join(self._pieces) in _LITERALS:
            self._end_atom()  # what follows a literal's last letter cannot be part of it
        return found.end()

    def _end_atom(self) -> None:
        text = "".join(self._pieces)
        if text in _LITERALS:
            value = _LITERALS[text]
        elif found := _NUMBER.fullmatch(text):
            try:
                value = float(text) if found[1] or found[2] else int(text)
            except ValueError:  # more digits than Python reads
                raise _Malformed("a number is too long") from None
        else:
            raise _Malformed("the text is no JSON")
        self._put(value)
        self._end_value()


class Growth:
    """Pieces of text → snapshots worth looking at. `inside` is the member that the value is wrapped in, if it is."""

    def __init__(self, schema: Schema | None, inside: str | None = None) -> None:
        self._reader = JsonReader(schema)
        self._inside = inside
        self._fed = 0
        self._seen = 0

    def feed(self, text: str) -> Any:
        """What is certain now, or None where it is too early to look again."""
        self._reader.feed(text)
        self._fed += len(text)
        if self._fed * _COPIED_PER_CHARACTER < self._reader.size:
            return None
        return self._look()

    def close(self) -> Any:
        """What is certain at the end, or None where it was said already."""
        self._reader.close()
        return self._look()

    def _look(self) -> Any:
        reader = self._reader
        if reader.changes == self._seen or not reader.has_value:
            return None
        self._seen, self._fed = reader.changes, 0
        value = reader.snapshot()
        return value if self._inside is None else value.get(self._inside) if isinstance(value, dict) else None
