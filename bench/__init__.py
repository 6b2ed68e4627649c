"""What is measured, and against what: every number stands beside a yardstick taken in the same run.

A module ``bench/NAME.py`` has one function ``rows() -> Iterator[Row]``; ``python -m bench [NAME…]`` (``make bench``)
runs them all and prints one table. A row is a ratio: ours over the physical floor, or over a peer's program. Use
``compare`` for anything that is timed: it takes turns, so that a busy machine disturbs both sides alike.
"""
