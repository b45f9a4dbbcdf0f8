"""The planner against its targets: searches, sections, the written report."""
