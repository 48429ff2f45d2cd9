"""How the demo looks: a live table where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .story import Story

_LAST_LINES: Final = 12


class View(Protocol):
    """Shows a story while it happens."""

    def refresh(self) -> None:
        """The story changed."""
        ...

    def close(self) -> None:
        """Stop showing; what is on the screen stays."""
        ...


class PlainView:
    """Prints each new line of the chronicle once."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story, self._console = story, console
        self._printed = 0

    def refresh(self) -> None:
        for line in self._story.lines[self._printed :]:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._printed = len(self._story.lines)

    def close(self) -> None:
        self.refresh()


class LiveView:
    """A table of peers over the last lines of the chronicle, drawn anew on every change."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def refresh(self) -> None:
        self._live.update(self._draw(), refresh=True)

    def close(self) -> None:
        self.refresh()
        self._live.stop()

    def _draw(self) -> Group:
        table = peer_table(self._story)
        # what does not fit is cut off at the bottom, and that is where the news is
        room = self._live.console.height - len(self._live.console.render_lines(table)) - 1
        news = self._story.lines[-max(1, min(room, _LAST_LINES)) :]
        return Group(table, *(Text(line, no_wrap=True, overflow="ellipsis") for line in news))


def peer_table(story: Story) -> Table:
    """Peers, their leases and the tasks that they did."""
    table = Table("peer", "id", "lease", "tasks done", expand=True)
    for peer in story.peers.values():
        table.add_row(
            peer.name, f"…{peer.peer[-8:]}" if peer.peer else "", Text(peer.state), str(peer.tasks or "")
        )
    return table


def show_end(story: Story, console: Console, problems: list[str]) -> None:
    """The result, the figures and where the logs are."""
    console.print()
    console.print(peer_table(story))
    if story.result is not None:
        console.print(
            f"{story.result['fits']} fits, best C={story.result['best_c']}, gamma={story.result['best_gamma']}, "
            f"cross-validated accuracy {story.result['best_accuracy']:.4f}"
            + ("; the same as without the kill" if story.reference == story.result else ""),
            highlight=False,
        )
    if story.output:
        console.print("the script's last lines (all are in the borrower's log):", highlight=False)
        for line in story.output:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    labels = {
        "first_task_s": "start to first task",
        "third_worker_s": "start to third worker",
        "kill_to_notice_s": "kill to notice",
        "kill_to_replacement_s": "kill to replacement",
        "job_done_s": "start to the job's end",
    }
    for name, value in story.figures().items():
        if name == "first_task_s" and story.with_script:
            continue
        console.print(
            f"{labels[name]:>24}: {'never' if value is None else f'{value:.1f} s'}", highlight=False
        )
    for peer in story.peers.values():
        console.print(f"{'log of ' + peer.name:>24}: {peer.log}", highlight=False, soft_wrap=True)
    if story.ray_log:
        console.print(f"{'log of the Ray head':>24}: {story.ray_log}", highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(f"not as promised: {problem}", style="bold red", highlight=False)
