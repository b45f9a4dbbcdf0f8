"""Tests of prewarm.foresight."""
