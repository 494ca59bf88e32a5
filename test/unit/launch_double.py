"""Strict stand-ins for `launch` and `launch_ros`, which no wheel has: documented names and keywords, nothing else.

They let a launch file run for real up to the actions that it would start; an unknown name or keyword fails.
"""

from __future__ import annotations

import inspect
import sys
import types


class Record:
    """Keeps the arguments that it was made with, checked against the documented signature."""

    documented = inspect.Signature()

    def __init__(self, *args, **kwargs):
        bound = self.documented.bind(*args, **kwargs)
        self.given = bound.arguments
        for name, value in bound.arguments.items():
            if name == "kwargs":
                for key, inner in value.items():
                    setattr(self, key, inner)
            else:
                setattr(self, name, value)


def record(name, function):
    return type(name, (Record,), {"documented": inspect.signature(function)})


class LaunchContext:
    def __init__(self, configurations):
        self.launch_configurations = configurations


LaunchDescriptionEntity = object
LaunchDescription = record("LaunchDescription", lambda initial_entities=None, *, deprecated_reason=None: None)
DeclareLaunchArgument = record(
    "DeclareLaunchArgument", lambda name, *, default_value=None, description=None, choices=None, condition=None: None
)
EmitEvent = record("EmitEvent", lambda *, event: None)
OpaqueFunction = record("OpaqueFunction", lambda *, function, args=None, kwargs=None, condition=None: None)
RegisterEventHandler = record("RegisterEventHandler", lambda event_handler, condition=None: None)
ExecuteProcess = record(
    "ExecuteProcess", lambda *, cmd, name=None, output="log", shell=False, condition=None, additional_env=None: None
)
OnProcessStart = record("OnProcessStart", lambda *, target_action=None, on_start=None: None)


def _node(
    *,
    executable,
    package=None,
    name=None,
    namespace=None,
    exec_name=None,
    parameters=None,
    remappings=None,
    ros_arguments=None,
    arguments=None,
    output="log",
    condition=None,
    respawn=False,
    respawn_delay=None,
):
    """The documented keywords of launch_ros.actions.Node, with those of the ExecuteProcess below it."""


def _lifecycle_node(*, name, namespace, executable, package=None, parameters=None, arguments=None, output="log"):
    """Those of launch_ros.actions.LifecycleNode that a launch file here may use; name and namespace are required."""


Node = record("Node", _node)
LifecycleNode = record("LifecycleNode", _lifecycle_node)
OnStateTransition = record(
    "OnStateTransition",
    lambda *, entities, target_lifecycle_node=None, transition=None, start_state=None, goal_state=None: None,
)
ChangeState = record("ChangeState", lambda *, lifecycle_node_matcher, transition_id: None)


class LaunchConfiguration:
    def __init__(self, variable_name, *, default=None):
        self.variable_name = variable_name

    def perform(self, context):
        return context.launch_configurations[self.variable_name]


def matches_action(target_action):
    return lambda action: action is target_action


MODULES = {
    "launch": ("LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"),
    "launch.actions": (
        "DeclareLaunchArgument",
        "EmitEvent",
        "ExecuteProcess",
        "OpaqueFunction",
        "RegisterEventHandler",
    ),
    "launch.event_handlers": ("OnProcessStart",),
    "launch.events": ("matches_action",),
    "launch.substitutions": ("LaunchConfiguration",),
    "launch_ros": (),
    "launch_ros.actions": ("LifecycleNode", "Node"),
    "launch_ros.event_handlers": ("OnStateTransition",),
    "launch_ros.events": (),
    "launch_ros.events.lifecycle": ("ChangeState",),
}


def install(monkeypatch):
    """Put the stand-ins where `import launch` finds them, for one test."""
    for module_name, names in MODULES.items():
        module = types.ModuleType(module_name)
        for name in names:
            setattr(module, name, globals()[name])
        monkeypatch.setitem(sys.modules, module_name, module)


def run(description, **arguments):
    """The entities that a launch with these arguments would start. An argument that is not declared fails."""
    entities = description.initial_entities
    declared = {e.name: e for e in entities if isinstance(e, DeclareLaunchArgument)}
    assert set(arguments) <= set(declared), "an argument that the launch file does not declare"
    values = {name: arguments.get(name, e.default_value) for name, e in declared.items()}
    for name, value in values.items():
        choices = getattr(declared[name], "choices", None)
        assert choices is None or value in choices, f"{name}:={value}"
    context = LaunchContext(values)
    started = [e for e in entities if not isinstance(e, DeclareLaunchArgument | OpaqueFunction)]
    for entity in entities:
        if isinstance(entity, OpaqueFunction):
            started += entity.function(context)
    return declared, started
