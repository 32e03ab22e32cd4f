"""Fuzz every dialect's decoder: no error but ours, no hang, no growth, and events that hold together.

    .venv/bin/python -m fuzz.decoders [--dialect NAME] [--minutes 10]

Seeds are the made-up streams of `penstock.testing.samples`, and recorded ones where they are at hand. A finding is
kept in `fuzz-findings/`; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fuzz.harness import Seed, reads_of, run
from penstock.canon.errors import PenstockError
from penstock.canon.events import Delta
from penstock.dialects import CLIENT_DIALECTS, DIALECTS, client_dialect
from penstock.testing.checks import written
from penstock.testing.replay import Driven, Recording, check_events, open_reply, replayed
from penstock.testing.samples import SAMPLES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

#: the corpus's names of dialects that are not ours
RECORDED = {"cohere": "cohere-v2", "bedrock": "bedrock-converse"}
MAX_SEED_BYTES = 20_000


def seeds(name: str) -> list[Seed]:
    found: list[Seed] = []
    if name in CLIENT_DIALECTS:
        language = client_dialect(name)
        found += [Seed(what, written(name, events), language.stream_type) for what, events in SAMPLES.items()]
        for what, events in SAMPLES.items():
            driven = Driven()
            driven.events = list(events)
            document = language.write_document(driven.response, model=None, request_id="r", created=1)
            found.append(Seed(f"{what}, document", document, "application/json"))
    try:
        from tests.corpus import recordings
    except ImportError:
        return found
    for held in recordings(RECORDED.get(name, name)):
        if len(held.data) <= MAX_SEED_BYTES:
            found.append(Seed(held.name, held.data, held.meta.get("content_type")))
    return found


def target(name: str) -> Callable[[Seed, bytes, random.Random], None]:
    def check(seed: Seed, data: bytes, rng: random.Random) -> None:
        recording = Recording(seed.name, data, seed.content_type)
        try:
            open_reply(name, recording)
        except PenstockError:
            return  # no stream at all
        driven = replayed(name, recording, reads_of(data, rng))
        check_events(driven.events, complete=driven.error is None)
        said = sum(len(event.text) for event in driven.events if type(event) is Delta)
        assert said <= 4 * len(data) + 1000, f"{said} characters of {len(data)} bytes"
        assert len(driven.events) <= len(data) + 100, f"{len(driven.events)} events of {len(data)} bytes"

    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialect", choices=sorted(DIALECTS), help="this one only")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each dialect [default: 10]")
    arguments = parser.parse_args()
    names = [arguments.dialect] if arguments.dialect else sorted(DIALECTS)
    return 1 if sum(run(name, target(name), seeds(name), arguments.minutes) for name in names if seeds(name)) else 0


if __name__ == "__main__":
    sys.exit(main())
