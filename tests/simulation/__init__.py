"""The whole actor tree in one process, on a seeded scheduler and a virtual clock: see `world`.

``python -m tests.simulation --seeds 1000`` runs seeds; ``--seed K`` runs one again, the same to the byte.
"""
