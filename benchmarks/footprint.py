"""Size of an installation without torch, and how long a person waits for imports and `--help`."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_INSTALL_MB = 400
MAX_SECONDS = 0.3
ROUNDS = 5

COMMANDS = {
    "vla-export": "holdfast.export.cli",
    "vla-run": "holdfast.runtime.cli",
    "vla-sim": "holdfast.drivers.simulated.cli",
    "vla-bench": "holdfast.benchmarks.cli",
    "vla-train": "holdfast.export.training.cli",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--no-install", action="store_true", help="times only; installs nothing")


def main(args: argparse.Namespace) -> int:
    result: dict[str, object] = {"seconds": measure_times()}
    if not args.no_install:
        if not (REPOSITORY / "pyproject.toml").exists():
            print("vla-bench footprint: needs the repository; or use --no-install", file=sys.stderr)
            return 2
        try:
            result["install"] = measure_install()
        except subprocess.CalledProcessError as error:
            print(f"vla-bench footprint: the installation failed:\n{error.stderr}", file=sys.stderr)
            return 1
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    _print(result)
    return 0


def measure_times() -> dict[str, float]:
    """Median wall time (s) of whole processes; `python` is the interpreter alone, contained in the others."""
    scripts = {"python": ["-c", "pass"], "import holdfast.runtime": ["-c", "import holdfast.runtime"]}
    scripts |= {f"{name} --help": ["-m", module, "--help"] for name, module in COMMANDS.items()}
    return {name: _median_seconds(arguments) for name, arguments in scripts.items()}


def measure_install() -> dict[str, object]:
    """Installs the core (no extras) into a throw-away environment: MB and packages, largest first."""
    with tempfile.TemporaryDirectory(prefix="holdfast-footprint-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, text=True)
        python = Path(folder) / "bin" / "python"
        # From a copy: building in place would leave, and later pick up, old files in build/.
        source = _copy_source(Path(folder) / "source")
        constraints = REPOSITORY / "constraints.txt"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "-c", constraints, source],
            check=True,
            capture_output=True,
            text=True,
        )
        listing = subprocess.run(
            [python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True
        )
        names = [
            row["name"] for row in json.loads(listing.stdout) if row["name"] not in ("pip", "setuptools")
        ]
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        sizes = {path.name: _megabytes(path) for path in packages.iterdir()}
        for tool in ("pip", "setuptools", "_distutils_hack", "pkg_resources"):
            sizes.pop(tool, None)
        largest = dict(sorted(sizes.items(), key=lambda item: -item[1])[:6])
        return {"megabytes": sum(sizes.values()), "packages": len(names), "largest_megabytes": largest}


def _copy_source(target: Path) -> Path:
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, target)
    for room in ("benchmarks", "calibration", "drivers", "export", "runtime"):
        shutil.copytree(REPOSITORY / room, target / room, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _median_seconds(arguments: list[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        times.append(time.perf_counter() - start)
        if done.returncode != 0:
            return float("nan")
    return statistics.median(times)


def _megabytes(path: Path) -> float:
    """Size of files on disk, MB (10^6 bytes)."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _print(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Footprint")
    for column in ("what", "measured", "aim", ""):
        table.add_column(column, justify="right" if column in ("measured", "aim") else "left")
    if install := result.get("install"):
        size = install["megabytes"]
        table.add_row(
            "core install", f"{size:.0f} MB", f"{MAX_INSTALL_MB} MB", _judge(size <= MAX_INSTALL_MB)
        )
        table.add_row("packages in it", str(install["packages"]), "", "")
    for name, seconds in result["seconds"].items():
        if name == "python":
            table.add_row("python itself", f"{seconds:.2f} s", "", "")
        else:
            table.add_row(name, f"{seconds:.2f} s", f"{MAX_SECONDS} s", _judge(seconds <= MAX_SECONDS))
    console = Console()
    console.print(table)
    if install:
        parts = ", ".join(f"{name} {size:.0f}" for name, size in install["largest_megabytes"].items())
        console.print(f"largest, MB: {parts}")


def _judge(ok: bool) -> str:
    return "ok" if ok else "over"
