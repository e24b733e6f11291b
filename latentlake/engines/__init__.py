"""Real models behind the doors of `latentlake.protocols`: a hooked subject, a language model, an embedder.

Here belongs whatever loads, runs or converts a model: where a checkpoint lies, how calls become batches, what is kept
of a shared prefix. What is asked of a model (prompts, windows, scores) belongs to the stages, sparse coders to
`latentlake.coders`, and the small models of the tests to `latentlake.fakes`. Engines know no lake and no study.

Import the engine's own module: importing this room alone loads neither torch nor transformers.
"""
