"""What happened in the demo so far, as plain data: fed by events, read by the view and by the final check."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

WORKERS: Final = 3
LENDERS: Final = 4
MIN_FITS: Final = 60
_LAST_OUTPUT: Final = 20  # lines of a script that are shown at the end; all of them are in the borrower's log


@dataclass(slots=True)
class PeerStory:
    """One peer as the demo sees it. state: of its lease, in words."""

    name: str
    log: str
    peer: str = ""
    state: str = "starting"
    load: str = ""
    tasks: int = 0
    refused: bool = False
    killed: bool = False


@dataclass(slots=True)
class Story:
    """Everything the demo shows. Times are seconds since the demo's start, None until it happened."""

    peers: dict[str, PeerStory] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    first_task_s: float | None = None
    third_worker_s: float | None = None
    killed_s: float | None = None
    noticed_s: float | None = None
    replaced_s: float | None = None
    job_done_s: float | None = None
    result: dict[str, Any] | None = None
    reference: dict[str, Any] | None = None
    script_status: int | None = None
    ray_log: str = ""
    output: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_OUTPUT))
    with_script: bool = False
    """Whether the job is a script of the user's, whose tasks cannot be counted."""

    @property
    def script_done(self) -> bool:
        """Whether the user's script has ended well."""
        return self.with_script and self.script_status == 0

    def named(self, peer: str) -> PeerStory | None:
        """The peer with this id, if it is one of the demo's."""
        return next((story for story in self.peers.values() if story.peer == peer), None)

    @property
    def active(self) -> list[PeerStory]:
        """Lenders whose worker runs."""
        return [story for story in self.peers.values() if story.state == "worker runs"]

    @property
    def tasks(self) -> int:
        """Tasks done by all."""
        return sum(story.tasks for story in self.peers.values())

    def cluster_event(self, at_s: float, kind: str, peer: str, reason: str) -> None:
        """Take one of the borrower's cluster events."""
        story = self.named(peer)
        if story is None:
            return
        match kind:
            case "found":
                story.state, story.load = "found", reason
            case "asked":
                story.state = "asked for a lease"
            case "granted":
                story.state = "lease granted, worker starts"
            case "active":
                story.state = "worker runs"
                if self.third_worker_s is None and len(self.active) == WORKERS:
                    self.third_worker_s = at_s
                if self.killed_s is not None and self.replaced_s is None:
                    self.replaced_s = at_s
            case "refused":
                story.state, story.refused = f"refused: {reason}", True
            case "ended":
                story.state = f"lease ended: {reason}"
                if story.killed and self.noticed_s is None:
                    self.noticed_s = at_s
            case _:
                return
        self.say(
            at_s, f"{story.name}: {story.state}{f' ({story.load})' if kind == 'found' and story.load else ''}"
        )

    def task_done(self, at_s: float, peer: str) -> None:
        """Count a finished task for the peer that did it."""
        if self.first_task_s is None:
            self.first_task_s = at_s
            self.say(at_s, "the first task is done")
        story = self.named(peer)
        if story is not None:
            story.tasks += 1

    def script_says(self, at_s: float, line: str) -> None:
        """Take a line that the user's script printed."""
        self.output.append(line)
        self.say(at_s, f"script: {line}")

    def say(self, at_s: float, text: str) -> None:
        """Add a line to the chronicle."""
        self.lines.append(f"{at_s:6.1f} s  {text}")

    def problems(self) -> list[str]:
        """What the demo promises and did not happen; empty when all of it did."""
        found: list[str] = []

        def expect(happened: bool, otherwise: str) -> None:
            if not happened:
                found.append(otherwise)

        if self.with_script:
            expect(
                self.script_status == 0,
                "the script did not end"
                if self.script_status is None
                else f"the script ended with status {self.script_status}",
            )
        expect(self.third_worker_s is not None, f"{WORKERS} workers never ran together")
        expect(any(story.refused for story in self.peers.values()), "no lender refused the borrower")
        expect(self.killed_s is not None, "no lender was killed")
        expect(self.noticed_s is not None, "the borrower did not notice the killed lender")
        expect(self.replaced_s is not None, "the killed lender was not replaced")
        if self.with_script:
            return found
        expect(self.first_task_s is not None, "no task was done")
        if self.result is None:
            found.append("the job has no result")
        else:
            expect(self.result["fits"] >= MIN_FITS, f"only {self.result['fits']} fits were done")
            expect(
                self.reference is not None and self.reference == self.result,
                "the result differs from a run without the kill",
            )
        return found

    def figures(self) -> dict[str, float | None]:
        """The measured times, in seconds."""

        def between(start: float | None, end: float | None) -> float | None:
            return None if start is None or end is None else round(end - start, 2)

        return {
            "first_task_s": between(0.0, self.first_task_s),
            "third_worker_s": between(0.0, self.third_worker_s),
            "kill_to_notice_s": between(self.killed_s, self.noticed_s),
            "kill_to_replacement_s": between(self.killed_s, self.replaced_s),
            "job_done_s": between(0.0, self.job_done_s),
        }
