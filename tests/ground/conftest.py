"""How hypothesis runs here: a busy machine is no reason to fail."""

from hypothesis import HealthCheck, settings

settings.register_profile("duly", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("duly")
