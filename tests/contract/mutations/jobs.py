"""Mutations of the worker's jobs: C3, C4, C5, C7, C13."""

from __future__ import annotations

from tests.contract.mutations.mutation import Mutation

MUTATIONS = (
    Mutation(
        "c3-a-reader-that-was-woken-is-written-to",
        "a reader that has fallen behind is given what is new before what it missed",
        "worker/reader.py",
        "        return self._waiting is not None and not self._waiting.done()\n",
        "        return self._waiting is not None\n",
        "worker/test_jobs.py::test_c3_however_a_client_reads_it_reads_each_token_once_and_in_order",
    ),
    Mutation(
        "c3-who-joins-late-misses-the-beginning",
        "a reader begins where the job is",
        "worker/reader.py",
        "        self._at = 0  # bytes of the log that it has\n",
        "        self._at = len(job.log)\n",
        "worker/test_jobs.py::test_c3_who_joins_late_reads_what_it_missed_and_then_goes_on",
    ),
    Mutation(
        "c4-a-failed-job-looks-complete",
        "a job that broke says [DONE], and not that it broke",
        "worker/job.py",
        "        self._close(ending, frame(ending) + DONE)\n",
        "        self._close(ending, DONE)\n",
        "worker/test_jobs.py::test_c4_every_ending_is_told_once",
    ),
    Mutation(
        "c5-narration-is-part-of-the-log",
        "who reads slowly must read all that was narrated before the tokens",
        "worker/job.py",
        "        self.last_narration = said = frame(narration(self.id, progress))\n",
        "        self.last_narration = said = frame(narration(self.id, progress))\n        self.log += said\n",
        "worker/test_narration.py::test_c5_narration_waits_for_no_client_that_does_not_read",
    ),
    Mutation(
        "c5-narration-is-everybodys",
        "what is narrated of a job carries no name, so that a reader of all of them could not tell them apart",
        "worker/job.py",
        "frame(narration(self.id, progress))\n",
        'frame(narration("", progress))\n',
        "worker/test_narration.py::test_c5_narration_belongs_to_its_job_alone",
    ),
    Mutation(
        "c7-a-job-whose-client-has-left-runs-on",
        "nobody reads it any more, and the engine goes on",
        "worker/job.py",
        "        if self._is_bound and not self._readers:\n",
        "        if self._is_bound and self._readers:\n",
        "worker/test_jobs.py::test_c7_the_client_of_execute_leaves_and_its_job_is_cancelled",
    ),
    Mutation(
        "c7-a-cancel-is-noted-and-not-done",
        "a job that is cancelled keeps its slot until it ends by itself",
        "worker/job.py",
        "            call.stopped = Cancelled(why)\n            self.task.cancel()\n",
        "            call.stopped = Cancelled(why)\n            self._fail(call.stopped)\n",
        "worker/test_jobs.py::test_c7_a_job_that_is_cancelled_frees_its_slot_and_says_so_once",
    ),
    Mutation(
        "c13-jobs-are-kept-for-good",
        "a job that is over is never forgotten",
        "worker/jobs.py",
        "        self._jobs.pop(job.id, None)\n\n    def _arm",
        "\n    def _arm",
        "worker/test_jobs.py::test_c13_five_hundred_jobs_of_every_ending_leave_nothing",
    ),
)
