"""The commands, a module each. `cli` registers them by name and imports one only when it is asked for.

What they share is private: `_options` (the flags of several), `_api` (the daemon over HTTP), `_screen` (what a person
sees). Answers go to standard output, everything else to standard error; `--json` is one JSON value, of `tail`,
which does not end, one a line, and stays the same from release to release.
"""
