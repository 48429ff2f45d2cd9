"""Protocol negotiation, without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.transport.multistream import Choice, Proposal

HEADER = b"\x13/multistream/1.0.0\n"


def agree(proposals: list[str], served: set[str], cut: int = 1000) -> tuple[Proposal, Choice]:
    proposal, choice = Proposal(proposals), Choice(served.__contains__)
    there = proposal.begin()
    for _ in range(100):
        back = b"".join(choice.feed(there[at : at + cut]) for at in range(0, len(there), cut))
        there = b"".join(proposal.feed(back[at : at + cut]) for at in range(0, len(back), cut))
        if not there:
            break
    return proposal, choice


def test_the_first_line_and_the_proposal_leave_together() -> None:
    assert Proposal(["/a/1"]).begin() == HEADER + b"\x05/a/1\n"
    assert Choice({"/a/1"}.__contains__).feed(HEADER + b"\x05/a/1\n") == HEADER + b"\x05/a/1\n"
    assert Choice({"/a/1"}.__contains__).feed(HEADER + b"\x05/b/1\n") == HEADER + b"\x03na\n"


@given(st.integers(1, 40))
def test_the_first_that_is_served_is_chosen(cut: int) -> None:
    proposal, choice = agree(["/c/1", "/b/1", "/a/1"], {"/a/1", "/b/1"}, cut)
    assert proposal.chosen == choice.chosen == "/b/1"
    assert not proposal.refused


def test_nothing_in_common_is_a_refusal() -> None:
    proposal, choice = agree(["/c/1", "/b/1"], {"/a/1"})
    assert proposal.refused
    assert choice.chosen is None


def test_bytes_after_the_agreement_are_kept() -> None:
    choice = Choice({"/a/1"}.__contains__)
    choice.feed(HEADER + b"\x05/a/1\n\x05hello")
    assert choice.rest == b"\x05hello"
    proposal = Proposal(["/a/1"])
    proposal.feed(HEADER + b"\x05/a/1\n\x05hello")
    assert (proposal.chosen, proposal.rest) == ("/a/1", b"\x05hello")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x05/a/1\n",  # no header
        b"\x00",
        b"\xff\xff\x7f",  # a line too long
        b"\x13/multistream/1.0.0 ",
        HEADER + b"\x03\xff\xfe\n",  # no text
        HEADER + b"\x03ls\n" * 64,
    ],
)
def test_nonsense_ends_the_negotiation(nonsense: bytes) -> None:
    with pytest.raises(BadMessage):
        Choice(lambda _: False).feed(nonsense)


def test_an_answer_that_was_not_asked_for_ends_it_too() -> None:
    with pytest.raises(BadMessage, match="answered"):
        Proposal(["/a/1"]).feed(HEADER + b"\x05/b/1\n")


@given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
def test_junk_raises_nothing_else(chunks: list[bytes], greeted: bool) -> None:
    for side in (Choice(lambda _: False), Proposal(["/a/1", "/b/1"])):
        try:
            if greeted:
                side.feed(HEADER)
            for chunk in chunks:
                side.feed(chunk)
        except BadMessage:
            pass
        assert len(side.rest) <= 1024 + 5 + 40
