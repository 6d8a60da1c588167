"""Fault campaigns on the real process: real sockets, a real disk, and what the system can do to them.

`table` lists what is done; each line is a `Scenario`: a fault, how it is injected, what was promised, and an oracle.
The test suite runs a round of each; ``python -m tests.faults`` runs many and writes ``docs/reliability.md``. A round is
random by its seed: the same seed makes the same choices, though not the same timing. The machinery is in `trial`, and
what must be true afterwards in `tests.daemon.load.Ledger.check`.
"""
