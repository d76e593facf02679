"""The flight recorder: the last seconds of a run in rings that survive the death of any process."""
