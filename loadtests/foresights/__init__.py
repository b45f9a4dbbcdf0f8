"""Who foresees in a simulated cluster: it hands a scenario's past to `prewarm.foresight`."""

from loadtests.foresights.from_past import learned as learned
from loadtests.foresights.from_slice import perfect as perfect
