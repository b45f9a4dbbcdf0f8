"""What is expected of each model, from seconds to hours ahead, for whoever decides.

`foreseeing.Foreseeing` is the door: the `Foresight` of `prewarm.controller`.
"""
