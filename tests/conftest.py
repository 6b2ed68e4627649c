"""What holds for every test: hypothesis neither measures a busy machine nor leaves a database behind."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "albatross",
    deadline=None,  # two cores shared by many are no measure of a property
    database=None,  # a test leaves nothing behind; what failed is printed and can be repeated from there
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("albatross")
