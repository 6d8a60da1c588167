"""Whatever bytes come: from callers, from the disk, over HTTP. Few examples in the suite, many in ``make faults``."""
