"""The model card of a `future` bundle."""

from __future__ import annotations

from wm_ros.future.config import FutureConfig
from wm_ros.nn.instruction import described
from wm_ros.training.scene_windows import SceneConfig
from wm_ros.training.task import RunInfo

READERS = {
    "all_tokens": "a transformer",
    "transformer": "a causal transformer over the past, read by one layer of attention,",
    "gru": "a GRU over the past, read by one layer of attention,",
    "s4d": "a diagonal state space model (S4D) over the past, read by one layer of attention,",
    "selective": "a selective state space model (Mamba) over the past, read by one layer of attention,",
}
CARD = """# {name}: hands, joints and frames to come

Stage I gives both wrists and all joints over {horizon:.1f} s: a linear path (ridge), what a three-layer MLP over the
past {history:.1f} s and the current state adds to it, and what {reader} reads in two states, the
instruction and that past, heeded as far as held-out episodes gained by it. With it
come {samples} samples of the wrists' paths: drawn by a small rectified
flow, weighed by an energy that is learned by contrast, as wide as held-out episodes want it. Commands are listened to
where the user asks for it. Stage II paints the frames at {frames} s on that trajectory: causal cross-attention, then
the U-Net of latent diffusion over latents of a small autoencoder, rectified flow. The frames shown are the conditional
mean (one step, no noise). A small reader of hands, trained on frames that were seen, says whether the hand is where
the trajectory has it.

Input: state tokens of the bundle `{state}` (tokens {sha:.12}…; tokens of another encoder mean nothing to it), joint
positions of {joints} joints by name, the image, the instruction (may be absent).
Instructions are read by {language}.{look}

Training: {command}
Data: {sources}. Licence of the data: {licences}. {episodes} episodes, {windows} windows; {held_out} episodes held out.
{scenes}Steps {steps}, seed {seed}.

On the held-out episodes (right wrist, all frames; PSNR over all horizons):

{table}

Limits: wrists are where the kinematics of the Unitree G1's arms say; another robot needs `hand_<side>` paths in the
torso frame, and its joints are not forecast. Grasped objects are seen, not felt: contact is foreseen poorly. Weights
are under Apache-2.0.
"""


LOOK = """ What they name is looked up in the image (`wm_ros/future/look.py`); without an image
the forecast does without."""
SCENES = """Beside them, moments of the simulated scenes {seeds} (Apache-2.0), {share:.0%} of the draws: one image, a
motion for each object that the hand could take, and words that alone say which. They also teach the phrases of
`future/subtask`.
"""


def write_card(
    name: str, config: FutureConfig, run: RunInfo, facts: dict[str, int], scenes: SceneConfig | None = None
) -> str:
    """The text of `CARD.md`."""
    rows = "\n".join(f"| {key} | {value:.2f} |" for key, value in sorted(run.log.items()))
    return CARD.format(
        name="future-lite" if name == "bundle" else name,
        reader=READERS[config.trajectory.backbone],
        history=config.history_steps / config.rate_hz,
        horizon=config.horizon_steps / config.rate_hz,
        samples=config.samples.count,
        frames=", ".join(f"{h:g}" for h in config.frame_horizons_s),
        language=described(config.language),
        look=LOOK if config.trajectory.image != "none" else "",
        scenes="" if scenes is None else SCENES.format(seeds=scenes.seeds, share=scenes.share),
        state=config.state_bundle,
        sha=config.state_tokens_sha256,
        joints=len(config.joint_names),
        command=f"`{run.command}`",
        sources=", ".join(run.sources),
        licences="; ".join(run.licences),
        steps=run.steps,
        seed=run.seed,
        table=f"| figure | value |\n|---|---|\n{rows}",
        **facts,
    )
