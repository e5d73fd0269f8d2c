"""The client library for edge devices and notebooks.

`Client` trains with a model, `DeveloperClient` manages models, `WebClient` runs scripts written for Capital One's FMA
client. Nothing here needs Django, and torch and scikit-learn are imported only by their own adapters.
"""

from fma_connect import exceptions
from fma_connect.clients import Client, DeveloperClient, WebClient
from fma_connect.joining import Joined, NotJoined
from fma_connect.pulled import Pulled
from fma_connect.retry import RetryPolicy
from fma_connect.version import __version__

__all__ = [
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
