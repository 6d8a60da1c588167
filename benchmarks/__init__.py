"""The benchmark: the daemon and its rivals in turn, in one run on one machine. `python -m benchmarks`, or `make bench`.

How to check that it is honest, file by file:

=================  ==================================================================================================
`payload`          what is sent: 226 bytes an event to everyone; to Redis one event, to others variations
`rivals`           how each contestant is started, with its settings
`load`             the load generators, and what counts as an answer
`pacing`           the constant-rate client, which counts from the time a request was due
`events` …         the measurements (`events half_load company neighbours history advice memory limits micro grouping`):
                   one function a contestant
`rounds`           contestants in turn, round after round
`results`          medians, spreads, and ratios paired round by round
`targets`          what was promised, as a table
`report`           what is written; every number comes from `results`
=================  ==================================================================================================
"""
