"""The table of parameters, declared to ROS: descriptor with type, range and description, and none may change."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from wm_ros.errors import UserError
from wm_ros.nodes.parameters import PARAMETERS, check


def declare(node: Node, name: str) -> str:
    """Declare the rows of node `name` in the table. Returns the line for the user where a given value is refused."""
    # rclpy has no public way to see given values that nobody has declared.
    given = {key: parameter.value for key, parameter in node._parameter_overrides.items()}
    problem = ""
    try:
        check(name, given, "parameters")
    except UserError as error:
        problem = str(error)
    for row in PARAMETERS[name]:
        descriptor = ParameterDescriptor(description=row.description, read_only=True)
        if row.low is not None and row.high is not None:
            if isinstance(row.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(row.low), to_value=int(row.high), step=0)]
            else:
                descriptor.floating_point_range = [FloatingPointRange(from_value=row.low, to_value=row.high)]
        try:
            node.declare_parameter(row.name, row.default, descriptor)
        except ParameterException:  # `check` has said why; the node goes on to say so when it is configured
            node.declare_parameter(row.name, row.default, descriptor, ignore_override=True)
    return problem
