"""An installed wheel is complete: a fresh environment that knows nothing of the sources runs a sweep in another folder.

The environment borrows the other packages from this one; the wheel itself is really built and installed.
"""

import csv
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment in which the wheel is installed."""
    home = tmp_path_factory.mktemp("fresh") / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    install = ["--python", str(interpreter), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    run(sys.executable, "-m", "pip", *install, cwd=home)
    (packages,) = home.glob("lib/python*/site-packages")
    # What such a line names is searched, but the .pth files in there, as that of an editable install, are not read.
    (packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return interpreter


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = {".py", ".j2", ".js", ".json"}
    needed = {path.relative_to(ROOT) for path in (ROOT / "explore").rglob("*") if path.suffix in kinds}
    needed |= {Path("explore") / path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    assert {str(path) for path in needed} <= names
    extra = {name for name in names - {str(path) for path in needed} if ".dist-info/" not in name}
    assert not extra
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_package_searches_in_another_folder(python: Path, tmp_path: Path) -> None:
    where = "import explore.config as config; print(config.__file__, config.CONF)"
    for place in run(python, "-c", where, cwd=tmp_path).split():
        assert Path(place).is_relative_to(python.parents[1]), "that is not the installed copy"

    run(python, "-m", "explore.sweep", "+sweep=smoke", "trials=2", "workers=1", cwd=tmp_path)

    folder = tmp_path / "outputs" / "smoke"
    assert all((folder / name).stat().st_size > 0 for name in ("report.html", "front.png", "study.db"))
    with (folder / "trials.csv").open() as table:
        trials = list(csv.DictReader(table))
    assert "complete" in {trial["status"] for trial in trials} <= {"complete", "stopped"}
    with (folder / "front.csv").open() as table:
        assert {trial["trial"] for trial in csv.DictReader(table)} <= {trial["trial"] for trial in trials}
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"], "everything lies in outputs"
