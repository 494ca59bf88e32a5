"""The card of a lidar bundle: what it is, what it has seen, what it is worth."""

from __future__ import annotations

from wm_ros.bundle import BundleConfig
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection_rules import detection_table
from wm_ros.lidar.scoring import METHODS


def lidar_card(config: BundleConfig[LidarConfig], pretrain_steps: int, examples: int) -> str:
    """Markdown text of CARD.md."""
    model, training = config.model, config.training
    log = config.metrics.get("validation", {})
    horizons = [h for h in model.occupancy.horizons_s if f"model_ap@{h:g}s" in log]
    head = " | ".join(f"{h:g} s" for h in horizons)
    rows = "\n".join(
        f"| {method} | " + " | ".join(f"{log[f'{method}_ap@{h:g}s']:.3f}" for h in horizons) + " |"
        for method in METHODS
    )
    voxel = " × ".join(f"{size:g}" for size in model.voxels.size_m)
    low, high = model.voxels.range_m[:3], model.voxels.range_m[3:]
    extent = " × ".join(f"{b - a:g}" for a, b in zip(low, high, strict=True))
    sources = ", ".join(f"`{source}`" for source in training.data)
    licences = training.data_licence.split("; ")
    if any("NC" in licence for licence in licences):
        licence = "CC BY-NC-SA 3.0 (KITTI was seen); not a default"
    elif all(licence.startswith("Apache-2.0") for licence in licences):
        licence = "Apache-2.0"
    else:
        licence = "that of the recordings: " + training.data_licence
    detections = detection_table(log)
    annotation = (
        "No annotation was used." if model.detection is None else "Boxes were used for the detection head only."
    )
    return f"""# {config.name}

A LiDAR sweep becomes a BEV embedding and, with odometry, the probability that each cell of {model.occupancy.cell_m:g} m
around the sensor is occupied {", ".join(f"{h:g}" for h in model.occupancy.horizons_s)} s later. Encoder: twelve sparse
convolutions, channels {model.encoder.channels} and {model.encoder.out_channels} per height, on {extent} m in voxels of
{voxel} m, pre-trained without labels by AD-L-JEPA (arXiv 2501.04969) for {pretrain_steps} of {training.steps} steps;
then a small U-Net that corrects a logistic regression, trained on what the sensor saw later. {annotation}

- Training data: {sources} ({examples} sweeps). Licences: {training.data_licence}.
- Licence of the weights: {licence}.
- Command: `{training.command}` ({training.steps} steps, seed {training.seed}, torch {training.torch_version}).
- Sensor assumed {model.sensor_height_m:g} m above the road; x, y, z in metres and intensity 0..1 in.

Average precision over visible cells, held-out episodes of the training sources:

| method | {head} |
|---|{"---|" * len(horizons)}
{rows}

{detections}Last validation: cross-entropy {log.get("forecast_bce", float("nan")):.4f}, of the logistic regression alone
{log.get("logistic_bce", float("nan")):.4f}; spread of the embedding's channels
{log.get("embedding_std", float("nan")):.3f}, effective rank {log.get("embedding_rank", float("nan")):.1f}.

Limits: trained on simulated traffic. Smaller than the paper's encoder, and its strided convolutions do not dilate.
Without odometry there is no forecast. Cells that no sensor has seen are not learned and mean nothing.
"""
