from lit_mm.flow.guidance import guide
from lit_mm.flow.path import interpolate, velocity
from lit_mm.flow.prediction import Prediction, check_width, flow_loss, to_velocity
from lit_mm.flow.sampler import FlowSampler
from lit_mm.flow.timesteps import TimestepDistribution, noise_shift, sample_timesteps, shift_timesteps

__all__ = [
    "FlowSampler",
    "Prediction",
    "TimestepDistribution",
    "check_width",
    "flow_loss",
    "guide",
    "interpolate",
    "noise_shift",
    "sample_timesteps",
    "shift_timesteps",
    "to_velocity",
    "velocity",
]
