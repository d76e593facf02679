"""Making calibrations of arms and cameras. Empty for now: `drivers.calibration` reads LeRobot's files, and
nothing here makes one yet."""
