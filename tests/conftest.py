"""What holds for every test: nothing measures a busy machine or leaves a database behind, and Ctrl-C is heard."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "albatross",
    deadline=None,  # two cores shared by many are no measure of a property
    database=None,  # a test leaves nothing behind; what failed is printed and can be repeated from there
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("albatross")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # as a shell has it for what it runs in the background; the programs that tests interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
