"""The actors: each one async callable that serves until it is told to stop."""
