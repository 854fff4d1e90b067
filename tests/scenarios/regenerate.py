"""Write the golden folders anew: `python -m tests.scenarios.regenerate`. Then read the diff."""

import shutil
import sys

from tests.scenarios.cases import SCENARIOS
from tests.scenarios.scenario import ROOT


def main() -> None:
    """Write every scenario's folder, and remove folders that no scenario has any more."""
    names = {scenario.name for scenario in SCENARIOS}
    for folder in ROOT.iterdir():
        if (folder / "report.json").exists() and folder.name not in names:
            shutil.rmtree(folder)
    for scenario in SCENARIOS:
        scenario.folder.mkdir(exist_ok=True)
        for name, text in scenario.files().items():
            (scenario.folder / name).write_text(text)
    sys.stdout.write(f"{len(names)} scenarios written to {ROOT}\n")


if __name__ == "__main__":
    main()
