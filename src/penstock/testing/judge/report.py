"""A judgement as a page of HTML that needs nothing else, and as JSON. Neither holds a key."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.testing.judge.findings import PROMISES

if TYPE_CHECKING:
    from penstock.testing.judge.findings import Judgement

_STYLE = """
:root{color-scheme:light dark;--held:#1a7f37;--broken:#cf222e;--unseen:#9a6700;--idle:#6e7781}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem}
tr.promise td{border-top:1px solid #8884;font-weight:600;padding-top:.8rem}code{overflow-wrap:anywhere}
.held{color:var(--held)}.broken{color:var(--broken)}.unseen{color:var(--unseen)}.idle{color:var(--idle)}
"""


def as_json(judgement: Judgement) -> bytes:
    told: dict[str, Any] = msgspec.to_builtins(judgement)
    told["promises"] = {promise: judgement.verdict(promise) for promise in judgement.promises}
    return msgspec.json.format(msgspec.json.encode(told), indent=2)


def as_html(judgement: Judgement) -> str:
    rows: list[str] = []
    for promise in judgement.promises:
        verdict = judgement.verdict(promise)
        rows.append(
            f'<tr class="promise"><td>{promise}</td><td>{escape(PROMISES[promise])}</td>'
            f'<td class="{verdict}">{verdict}</td><td></td></tr>'
        )
        rows += [
            f'<tr><td></td><td>{escape(it.case)}</td><td class="{it.verdict}">{it.verdict}</td>'
            f"<td>{escape(it.evidence)}</td></tr>"
            for it in judgement.of(promise)
        ]
    facts = {
        "endpoint": judgement.endpoint,
        "asked in": judgement.dialect,
        "it asks in": judgement.upstream_dialect,
        "started by": judgement.command,
        "at": judgement.at,
        "questions": str(judgement.asked),
        "judged by": f"penstock {judgement.penstock}",
    }
    told = "".join(
        f"<tr><th>{name}</th><td><code>{escape(value)}</code></td></tr>" for name, value in facts.items() if value
    )
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(judgement.endpoint)}: {escape(summary(judgement))}</title><style>{_STYLE}</style>"
        f"<h1>{escape(summary(judgement))}</h1><table>{told}</table>"
        f"<h2>Promises</h2><table><tr><th></th><th></th><th>verdict</th><th>evidence</th></tr>{''.join(rows)}</table>"
        "</html>\n"
    )


def summary(judgement: Judgement) -> str:
    broken, unseen, all_of = judgement.broken, judgement.unseen, judgement.promises
    idle = [promise for promise in all_of if judgement.verdict(promise) == "idle"]
    held = [promise for promise in all_of if judgement.verdict(promise) == "held"]
    parts = [f"{len(held)} of {len(all_of) - len(idle)} promises held"]
    if broken:
        parts.append(f"broken: {', '.join(broken)}")
    if unseen:
        parts.append(f"not seen: {', '.join(unseen)}")
    if idle:
        parts.append(f"not at stake: {', '.join(idle)}")
    return "; ".join(parts)
