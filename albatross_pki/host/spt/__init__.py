"""The embedded tender: runs unikernels built for Solo5's ``spt`` target where Solo5 is not installed.

``architecture`` and ``attached`` are the words; ``filter`` makes the seccomp program, ``stub`` the machine code and the
list of system calls that it makes, ``bootinfo`` what the unikernel finds at its start; ``compose`` puts them with the
image into one sealed ELF in memory, ``spawn`` executes it. ``docs/spt-loader.md`` tells the whole story.
"""
