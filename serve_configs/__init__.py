"""The catalogs that ship with Warmtide, as package data."""
