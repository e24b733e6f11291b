"""With what: settings and secrets turned into lazy handles.

What belongs here: where the lake is, on which device and in how large batches models run. None of it may change results;
what does is in the study. What does not belong here: assets, jobs, and what is done with the handles.
"""
