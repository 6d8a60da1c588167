"""The program that this daemon replaces, and this daemon, side by side over the same bodies.

`python -m tests.parity` (`make parity`) runs both and compares what they answer and what they write, field by
field. Only the differences that stand by name in `named` may occur; any other is shown in full and fails the run.

What belongs where: `bun` and `seed` run the program that is replaced, `daemon` runs ours, `gateway` is what the
former cannot do without; `bodies` says what is sent; `side_by_side` sends it; `compare` (pure) finds each
difference and `named` (pure) says which are wanted; `check` is the run as a whole.
"""
