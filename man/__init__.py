"""Manual pages, made from what ``--help`` is made from.

``python -m man`` writes ``share/man/man1/PROGRAM.1`` for every console script; the package installs them. A test
compares what is there with what would be written now.
"""
