"""Copies of a cluster's state at other peers, so that its borrower can go on with it on another machine.

    borrower                                      holder (a lender that says so)
    copying.py   the state, as a crash leaves it
    form.py      packed, sealed to oneself, signed
    giving.py    to k holders, when it changed -->  serving.py  shelf.py (what is taken), files.py (where it is)
    restoring.py the newest that is genuine    <--

protocol.py is what goes over the stream between them.
"""
