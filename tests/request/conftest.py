"""What the tests of requests share with those of the CA: a directory to work in, the programs."""

from tests.ca.workplace import ask, ca, workplace

__all__ = ["ask", "ca", "workplace"]
