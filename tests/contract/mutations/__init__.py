"""The table of mutations: each of the thirteen promises broken in several ways."""

from __future__ import annotations

from tests.contract.mutations import at_ends, beside, jobs, on_the_way, policies
from tests.contract.mutations.mutation import ROOT, DoesNotApply, Mutation

MUTATIONS: tuple[Mutation, ...] = tuple(
    sorted(
        (*on_the_way.MUTATIONS, *at_ends.MUTATIONS, *beside.MUTATIONS, *policies.MUTATIONS, *jobs.MUTATIONS),
        key=lambda mutation: int(mutation.promise[1:]),
    )
)

__all__ = ["MUTATIONS", "ROOT", "DoesNotApply", "Mutation"]
