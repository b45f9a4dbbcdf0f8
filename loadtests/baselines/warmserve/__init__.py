"""WarmServe as a baseline: the published algorithm, step by step, each step a pure function.

Sources: arXiv 2512.09472 v1 and v2, and the behaviour of github LLMServe/WarmServe at a601215. Own
words and own code; section numbers (4.1 and so on) are those of `docs/baselines.md`, which lists
what each step says, where we had to choose, and what each flag does.
"""
