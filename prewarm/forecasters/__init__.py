"""The built-in forecasters, all streams at once: `registry` lists them by name."""
