"""When: the run entry, and later jobs, schedules and sensors.

What belongs here: what is launched, in which order, and how Dagster's memory is kept in step with the lake. What does
not: row logic, and reading or writing tables of stages.
"""
