"""Make the two sample bags of `make demo` again: simulated; same seed, same bytes."""

from __future__ import annotations

from wm_ros.cli_recordings import SIMULATED
from wm_ros.data.bags import write_bag
from wm_ros.data.simulator import drive_samples, tabletop_samples
from wm_ros.outputs import fresh_folder
from wm_ros.paths import SAMPLES

# Seeds that no training run has used (training takes seeds below 100 000).
DRIVE = {"seed": 200_001, "seconds": 7.0, "beams": 32, "azimuths": 600, "speed_mps": 7.0}
TABLETOP = {"seed": 900_057, "seconds": 7.5}


def main() -> None:
    """Write samples/drive and samples/tabletop, replacing them."""
    with fresh_folder(SAMPLES / "drive", force=True) as folder:
        write_bag(folder, drive_samples(**DRIVE), licence=SIMULATED)
    with fresh_folder(SAMPLES / "tabletop", force=True) as folder:
        write_bag(folder, tabletop_samples(**TABLETOP), licence=SIMULATED)


if __name__ == "__main__":
    main()
