"""Sparse coders behind `latentlake.protocols.Coder`: SAEs, transcoders, neurons, and controls of them.

Here belongs what every coder has in common: its parameters in one form (`parameters`), which latents fire (`rules`), what is
done to inputs first (`scaling`), encode and decode (`coder`), reading files that are not trusted (`reading`), and controls
(`controls`). What knows the files, names and formula of one checkpoint format is one module in `latentlake.coders.formats`.
Where activations come from belongs to `latentlake.engines`; how they are stored, to the stages.

Importing this room does not load torch.
"""
