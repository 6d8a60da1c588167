"""Stand-ins for the world outside: deterministic, in memory."""
