"""Break each promise on purpose, in a copy of the source, and see its test fail: `python -m tests.contract.mutants`.

For every mutation of the table (`tests.contract.mutations`) the source is copied to a temporary folder and one text of
it replaced; then the named test runs against that copy. The mutant is caught when the test fails by an assertion, or
by waiting in vain; it survives when the test passes. A test that fails in another way (an import, a name, its set-up)
proves nothing, and neither does one that fails on the unchanged source: that is tried first. Exit 1 when a mutant
survives or nothing was proved, 2 when no mutation fits what was asked for. The checkout is never written to.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tests.contract.mutations import MUTATIONS, ROOT, DoesNotApply, Mutation

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = ROOT / "src"

#: what a test may raise to say that a promise is broken
RIGHT = {"AssertionError", "TimeoutError", "TimeoutExpired", "Failed"}

#: `(error,) = said.errors` asserts that there is one
UNPACKED = re.compile("(not enough|too many) values to unpack")

#: what a mutation raises that is broken itself, in the test's own process or in the one that it started
WRONG = re.compile(r"\b(ImportError|ModuleNotFoundError|SyntaxError|NameError|UnboundLocalError|AttributeError): ")

LIMIT_S = 180.0

#: caught: by an assertion, or by waiting in vain · broken: failed, and not for the promise's sake
Verdict = Literal["caught", "survived", "broken"]


class Outcome(NamedTuple):
    mutation: Mutation
    verdict: Verdict
    why: str
    took_s: float


def run_tests(folder: Path, nodes: Sequence[str], *, stop_at_first: bool = True) -> tuple[list[dict[str, Any]], str]:
    """What the tests came to against the source in `folder`, and what pytest printed."""
    verdicts = folder / "verdicts.jsonl"
    environ = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "MUTANT_SOURCE": str(folder / "src"),
        "MUTANT_VERDICTS": str(verdicts),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.contract.verdicts", "-p", "no:cacheprovider"]
    command += ["--basetemp", str(folder / "tmp"), *(["-x"] if stop_at_first else []), *nodes]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed, _ = process.communicate(timeout=LIMIT_S if stop_at_first else None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # its fixtures end what they have started
        try:
            printed, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
    lines = verdicts.read_text(encoding="utf-8").splitlines() if verdicts.exists() else []
    return [json.loads(line) for line in lines], printed.decode(errors="replace")


def copied(folder: Path) -> Path:
    """The source with its bytecode, which is still good for what is not changed."""
    shutil.copytree(SOURCE, folder / "src")
    return folder / "src"


def tried(mutation: Mutation) -> Outcome:
    """The mutation applied to a copy, and its test run against it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-mutant-") as name:
        folder = Path(name)
        path = copied(folder) / "penstock" / mutation.file
        try:
            path.write_text(mutation.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
        except DoesNotApply as error:
            return Outcome(mutation, "broken", str(error).splitlines()[0], 0.0)
        verdict, why = judged(*run_tests(folder, [mutation.node]))
    return Outcome(mutation, verdict, why, time.monotonic() - began)


def judged(reports: list[dict[str, Any]], printed: str) -> tuple[Verdict, str]:
    """Whether the test noticed, and noticed what it was written for."""
    if not reports:
        return "broken", _last_line(printed)
    for report in reports:
        if not report["passed"] and (wrong := WRONG.search(report["text"])):
            return "broken", wrong[0] + report["text"][wrong.end() :].partition("\n")[0][:120]
    failed = next((report for report in reports if not report["passed"] and report["phase"] == "call"), None)
    if failed is None:
        failed_around = next((report for report in reports if not report["passed"]), None)
        if failed_around is not None:
            return "broken", f"{failed_around['phase']}: {failed_around['message']}"
        return "survived", f"{len(reports)} passed"
    if not RIGHT.intersection(failed["raised"]) and not UNPACKED.match(failed["message"]):
        return "broken", f"{failed['raised'][0]}: {failed['message']}"
    return "caught", f"{failed['raised'][0]}: {failed['message']}"


def _last_line(printed: str) -> str:
    return next(iter(printed.strip().splitlines()[-1:]), "pytest said nothing")[:200]


def unmutated(mutations: Sequence[Mutation]) -> list[str]:
    """The named tests that fail as they are: they cannot prove anything."""
    with tempfile.TemporaryDirectory(prefix="penstock-mutant-") as name:
        folder = Path(name)
        copied(folder)
        nodes = list(dict.fromkeys(mutation.node for mutation in mutations))
        reports, printed = run_tests(folder, nodes, stop_at_first=False)
        doubtful = [report["test"] for report in reports if not report["passed"]]
        if doubtful:  # once more, and alone: a busy machine can hold up what measures time
            (folder / "verdicts.jsonl").unlink()
            reports, printed = run_tests(folder, doubtful, stop_at_first=False)
    failed = [f"{report['test']}: {report['message']}" for report in reports if not report["passed"]]
    return failed or ([] if reports else [_last_line(printed)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--promise", action="append", metavar="C4", help="only mutations of this promise")
    parser.add_argument("--name", action="append", metavar="NAME", help="only this mutation")
    parser.add_argument("--list", action="store_true", help="print the table, and run nothing")
    parser.add_argument("--check", action="store_true", help="say which no longer apply to the source, and run nothing")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at the same time (2)")
    options = parser.parse_args(arguments)
    promises = {promise.upper() for promise in options.promise or ()}
    chosen = [
        mutation
        for mutation in MUTATIONS
        if (not promises or mutation.promise in promises) and (not options.name or mutation.name in options.name)
    ]
    if not chosen:
        print("No mutation fits. --list prints them all.", file=sys.stderr)
        return 2
    if options.check:
        return checked(chosen)
    if options.list:
        listed([Outcome(mutation, "survived", mutation.breaks, 0.0) for mutation in chosen], as_json=options.json)
        return 0
    return prove(chosen, jobs=options.jobs, as_json=options.json)


def checked(mutations: Sequence[Mutation]) -> int:
    """Whether each text is still there, its replacement is Python, and its test exists. Takes a second."""
    wrong = 0
    for mutation in mutations:
        try:
            check(mutation)
        except (AssertionError, OSError, SyntaxError) as error:
            wrong += 1
            print(f"{error}", file=sys.stderr)
    if wrong:
        print(
            f"{wrong} of {len(mutations)}: write them anew, and run scripts/mutants --name with each.", file=sys.stderr
        )
    return 1 if wrong else 0


def check(mutation: Mutation) -> None:
    """Raises what is wrong with it."""
    source = (SOURCE / "penstock" / mutation.file).read_text(encoding="utf-8")
    compile(mutation.applied(source), mutation.file, "exec")
    mutation.check_test()


def prove(mutations: Sequence[Mutation], *, jobs: int, as_json: bool) -> int:
    """Run them all, with progress on standard error and the table at the end. The exit code."""
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    progress(f"the tests of {len(mutations)} mutations, on the source as it is")
    if failed := unmutated(mutations):
        for line in failed:
            print(f"Fails without any mutation: {line}", file=sys.stderr)
        return 1
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(tried, mutation) for mutation in mutations]):
            outcomes.append(done.result())
            outcome = outcomes[-1]
            progress(f"{len(outcomes):3} of {len(mutations)}  {outcome.verdict:8}  {outcome.mutation.name}")
    order = {mutation.name: number for number, mutation in enumerate(mutations)}
    outcomes.sort(key=lambda outcome: order[outcome.mutation.name])
    listed(outcomes, as_json=as_json, with_verdict=True)
    caught = sum(outcome.verdict == "caught" for outcome in outcomes)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(outcomes)} mutants, {caught} caught, {minutes:.1f} minutes", file=sys.stderr)
    return 0 if caught == len(outcomes) else 1


def listed(outcomes: Sequence[Outcome], *, as_json: bool, with_verdict: bool = False) -> None:
    if as_json:
        rows = [
            {
                "name": outcome.mutation.name,
                "promise": outcome.mutation.promise,
                "breaks": outcome.mutation.breaks,
                "file": f"src/penstock/{outcome.mutation.file}",
                "test": outcome.mutation.node,
                **(
                    {"verdict": outcome.verdict, "why": outcome.why, "seconds": round(outcome.took_s, 1)}
                    if with_verdict
                    else {}
                ),
            }
            for outcome in outcomes
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(len(outcome.mutation.name) for outcome in outcomes)
    for outcome in outcomes:
        verdict = f"{outcome.verdict:8}  {outcome.took_s:5.1f} s  " if with_verdict else ""
        print(f"{outcome.mutation.name:{width}}  {verdict}{outcome.why}")


if __name__ == "__main__":
    sys.exit(main())
