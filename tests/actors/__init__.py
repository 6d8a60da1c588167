"""Tests of what lies between actors: the commits, admission, cycles and tails."""
