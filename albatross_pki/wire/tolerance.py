"""The closed list of forms that are read although we would write something else.

Everything that a decoder accepts encodes to the octets that it was read from, unless the decoder noted one of these
forms. Each is here because somebody really writes it; nothing else is forgiven. Hand a set to a decoder as its
``forms`` to learn which ones came. What is read once and written again is always in our form, and reads as the same.
"""

from enum import Enum


class Form(Enum):
    """A tolerated form; the value says what it is and who writes it."""

    NAME = "a name before normalisation: upper case, one leading colon, no colon (clients and state files before 2.6)"
    TIME = "a fraction of a second of other than three digits (DER writers), or of 000 (Albatross below 1 ms)"
    ORDER = "a set, or a list that stands for a set or a tree, in another order (senders that do not sort)"
    EMPTY = "an optional list that is present and empty (senders that do not leave it out)"
    CPUS = "the number of virtual CPUs left out, meaning one (grammar of configurations and infos since 2.7)"
    OLD_STATE = "a state dump of an older version (2.6 and before); it is written as the newest"
