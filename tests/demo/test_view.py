"""The live view on a small terminal: the newest line is always to be seen, and nothing runs over."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from swarmp2p.demo.story import PeerStory, Story
from swarmp2p.demo.view import LiveView, show_end


def a_story(lines: int) -> Story:
    story = Story(
        {name: PeerStory(name, f"{name}.log", peer=name * 8) for name in ("borrower", "a", "b", "c", "d")}
    )
    for number in range(lines):
        story.say(number, f"line {number} " + "which is long " * 10)
    return story


@pytest.mark.parametrize("height", [5, 15, 24, 60])
def test_the_newest_line_is_on_the_screen(height: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=height)
    story = a_story(0)
    view = LiveView(story, console)
    story.lines += a_story(40).lines
    screen.truncate(0)
    view.refresh()
    frame = screen.getvalue()
    view.close()
    shown = [line for line in frame.splitlines() if "line " in line]
    if height > 12:
        assert "line 39 " in shown[-1]
        assert frame.count("\n") < height
    assert len(shown) <= 12


def test_the_end_names_what_a_script_does_not_tell_only_where_it_is_told() -> None:
    for with_script in (False, True):
        screen = io.StringIO()
        story = a_story(0)
        story.with_script = with_script
        if with_script:
            for number in range(30):
                story.script_says(1.0, f"[bold] {number}")
        show_end(story, Console(file=screen, width=80), ["the script ended with status 1"])
        assert ("start to first task: never" in screen.getvalue()) is not with_script
        assert "not as promised: the script ended with status 1" in screen.getvalue()
        assert screen.getvalue().count(".log") == 5
        assert ("  [bold] 29\n" in screen.getvalue()) is with_script
        assert "[bold] 9\n" not in screen.getvalue()
