import subprocess
import sys

import fma_connect
from fma_connect import clients


def test_public_names_are_exactly_these() -> None:
    assert fma_connect.__all__ == [
        "Client",
        "DeveloperClient",
        "Joined",
        "NotJoined",
        "Pulled",
        "RetryPolicy",
        "WebClient",
        "__version__",
        "exceptions",
    ]
    assert clients.__all__ == ["Client", "DeveloperClient", "WebClient"]
    assert all(hasattr(fma_connect, name) for name in fma_connect.__all__)


def test_import_brings_nothing_that_an_edge_device_lacks() -> None:
    program = (
        "import sys; from fma_connect import *; import fma_connect.adapters.torch_state_dict, "
        "fma_connect.adapters.sklearn_estimator, fma_connect.adapters.nested_lists, fma_connect.adapters.array_list; "
        "print(sorted({'django', 'orjson', 'requests', 'sklearn', 'torch'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
