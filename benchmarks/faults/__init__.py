"""The fault campaign: what `vla-bench faults` runs."""
