"""Hardware models: prices, memory, twins, mapping. They see counts (:mod:`qkf_deploy.ledger`), never simulators."""

from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy, price
from qkf_deploy.hw_models.profiles import Profile, load_profile, profile_names

__all__ = ["EnergyReport", "LayerEnergy", "Profile", "load_profile", "price", "profile_names"]
