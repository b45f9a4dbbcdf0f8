"""Tests of the forecasts' command, its tables and its reports."""
