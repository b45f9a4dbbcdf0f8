"""Forecasts held against what came: back-tests, the next day, the scoreboard, their reports."""
