"""The edge: one port, ingest and everything else that is HTTP."""
