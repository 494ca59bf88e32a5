"""What to do: state tokens, measured joints and an instruction become a chunk of joint commands (ACT-JEPA)."""

from wm_ros.policy.capability import Policy

CAPABILITY = Policy

__all__ = ["CAPABILITY", "Policy"]
