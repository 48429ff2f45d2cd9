"""The whole suite's Hypothesis: no example has a deadline, since it runs beside others on two busy cores."""

from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
