"""python-can's own tests, run against canbroker: ``make conformance``.

They are taken from python-can's source distribution when they are run, or from a checkout that
the caller names; nothing of them is kept here. Two ways: :mod:`.plugin`.
"""
