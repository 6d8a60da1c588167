"""The actors, each with an async callable that serves until it is told to stop, and what stands between them.

That is what they are handed (`surroundings`, `open_journal`, `learned`), the ways from one to another (`admission`,
`commits`, `recorder`, `tail`), and parts of one that are modules of their own.
"""
