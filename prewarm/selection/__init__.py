"""Which forecaster to believe: they compete, are blended, corrected, and earn their right to act.

`selector.Selector` is the door; it is a `Forecaster` itself.
"""
