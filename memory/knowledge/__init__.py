"""The knowledge layer: what past attempts taught, kept as memories and recalled for later tasks.

`memories` says what a memory is, `shelf` keeps memories in the store (the truth), `index` finds them again (always
rebuildable), `layer` recalls and remembers, `consolidation` tidies up at night.
"""
