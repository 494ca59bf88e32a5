"""The policy node with a flow: chunks go on from the one that runs, and from none after a safe command."""

from test_policy_imagination import bundle
from workbench import joints, tokens

from wm_ros.nodes.policy import Policy


def test_after_a_safe_command_no_chunk_runs(bench, tmp_path):
    bench.listen("action_step")
    parameters = {"execution": "real_time", "max_age_s": 0.0, "input_timeout_s": 5.0, "chunk_timeout_s": 5.0}
    node = bench.active(Policy, bundle=bundle(tmp_path / "tiny"), **parameters)
    bench.connect(node, "state/tokens", "joint_states")

    def follows() -> bool:
        now = bench.now_ns()
        bench.publish(joints(now), tokens(now))
        return node.capability.running is not None and bool(bench.heard["action_step"])

    bench.until(follows, "a chunk runs")
    chunk, delay_ns = node.capability.running
    assert chunk.position_rad.shape == (15, 26) and delay_ns > 0
    node.hold("somebody asks for it")
    assert node.capability.running is None
