"""The demo's chronicle: what it counts, and what it finds missing."""

from __future__ import annotations

from typing import Any

from swarmp2p.demo.story import PeerStory, Story

RESULT: dict[str, Any] = {"fits": 250, "best_c": 1.0, "best_gamma": 0.1, "best_accuracy": 0.9, "digest": "ab"}


def whole_story() -> Story:
    story = Story(
        {name: PeerStory(name, f"{name}.log", peer=f"id-{name}") for name in ("borrower", "a", "b", "c", "d")}
    )
    story.cluster_event(1.0, "refused", "id-d", "not allowed")
    for at, name in enumerate("abc", 2):
        story.cluster_event(float(at), "active", f"id-{name}", "")
    story.task_done(3.5, "id-a")
    story.peers["a"].killed, story.killed_s = True, 6.0
    story.cluster_event(7.0, "ended", "id-a", "silent")
    story.cluster_event(9.0, "active", "id-d", "")
    story.task_done(9.5, "id-d")
    story.result, story.reference, story.job_done_s, story.script_status = dict(RESULT), dict(RESULT), 12.0, 0
    return story


def test_a_whole_story_has_no_problems_and_the_right_figures() -> None:
    story = whole_story()
    assert story.problems() == []
    story.with_script = True
    assert story.problems() == []
    assert story.figures() == {
        "first_task_s": 3.5,
        "third_worker_s": 4.0,
        "kill_to_notice_s": 1.0,
        "kill_to_replacement_s": 3.0,
        "job_done_s": 12.0,
    }
    assert [peer.tasks for peer in story.peers.values()] == [0, 1, 0, 0, 1]


def test_nothing_having_happened_is_told_in_full() -> None:
    assert len(Story().problems()) == 7
    assert len(Story(with_script=True).problems()) == 6


def test_a_result_that_differs_from_the_reference_is_a_problem() -> None:
    story = whole_story()
    assert story.reference is not None
    story.reference["digest"] = "cd"
    assert story.problems() == ["the result differs from a run without the kill"]


def test_a_missing_reference_is_a_problem() -> None:
    story = whole_story()
    story.reference = None
    assert story.problems() == ["the result differs from a run without the kill"]


def test_too_few_fits_are_a_problem() -> None:
    story = whole_story()
    assert story.result is not None
    assert story.reference is not None
    story.result["fits"] = story.reference["fits"] = 59
    assert story.problems() == ["only 59 fits were done"]


def test_a_script_that_fails_is_a_problem() -> None:
    story = whole_story()
    story.with_script, story.script_status = True, 3
    assert story.problems() == ["the script ended with status 3"]


def test_events_about_strangers_change_nothing() -> None:
    story = whole_story()
    before = list(story.lines)
    story.cluster_event(20.0, "active", "id-of-nobody", "")
    assert story.lines == before
