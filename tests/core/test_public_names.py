import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import fma_core

# What a single file may import beside numpy and the standard library.
OPTIONAL = {
    "json_bytes.py": {"orjson"},
    "json_pieces.py": {"orjson"},
    "compiled.py": {"numba"},
    "blas_threads.py": {"threadpoolctl"},
    "keys.py": {"cryptography"},
    "pem.py": {"cryptography"},
    "curve.py": {"matplotlib"},
    "zstd.py": {"backports", "compression"},  # the standard library's, before Python 3.14 and since
}


def test_public_names_of_fma_core():
    assert fma_core.__all__ == [
        "ArraySpec",
        "FMAError",
        "Limits",
        "Spec",
        "decode",
        "encode",
        "read_file",
        "simulate",
    ]
    assert all(hasattr(fma_core, name) for name in fma_core.__all__)


def test_importing_all_of_the_core_brings_no_framework():
    program = (
        "import sys, fma_core.engine, fma_core.in_memory, fma_core.rounds.requirements;"
        "import fma_core.simulation, fma_core.arrays.codecs.receive, fma_core.arrays.codecs.json_layouts;"
        "print(sorted({'django', 'torch', 'orjson', 'safetensors', 'httpx', 'pytest'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_edge_device_does_not_wait_for_the_engine():
    program = "import sys, fma_core; print('fma_core.engine' in sys.modules, fma_core.simulate.__name__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "simulate"]


def test_nothing_is_unpickled_and_only_numpy_and_the_standard_library_are_imported():
    allowed = {"numpy", "ml_dtypes", "fma_core", *sys.stdlib_module_names} - {
        "pickle",
        "marshal",
        "shelve",
        "time",
    }
    folder = Path(fma_core.__file__).parent
    for path in set(folder.rglob("*.py")) - set(folder.glob("testing/*.py")):  # for test suites, which pickle
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.split(".")[0] for name in names}
            assert found <= allowed | OPTIONAL.get(path.name, set()), path


def test_the_dotted_name_of_a_package_is_that_package():
    # A part of that name beside it would be what `import fma_core.selection.filters as filters` gives.
    for package in pkgutil.walk_packages(fma_core.__path__, "fma_core."):
        if package.ispkg:
            imported = importlib.import_module(package.name)
            parent, _, name = package.name.rpartition(".")
            assert getattr(sys.modules[parent], name) is imported, package.name
