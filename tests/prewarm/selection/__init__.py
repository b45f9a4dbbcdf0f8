"""Tests of prewarm.selection."""
