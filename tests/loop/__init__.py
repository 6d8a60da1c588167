"""The closed loop, proved: a simulated fleet of agents against the real daemon, with and without advice.

`python -m tests.loop` (or `make loop`) writes docs/loop.md; a bounded form runs with the tests.
"""
