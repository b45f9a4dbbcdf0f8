"""Deciding: facts and the time in, plans out. Pure.

`reactive` climbs when somebody waits, `rungs` also looks ahead, `residency` says which engines are
to exist, and `standing` starts those that are missing, in idle time. They share the draft of the
cluster (`draft`), the ways up (`climbs`), who makes room (`victims`) and the writing down of
actions with their reasons (`writing`).
"""
