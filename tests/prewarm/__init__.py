"""Tests of prewarm."""
