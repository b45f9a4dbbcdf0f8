"""`warmtide doctor`: what stands in the way of a gateway here, and how to mend it."""
