"""The three clients: for edge devices, for developers, and for scripts of Capital One's FMA."""

from fma_connect.clients.client import Client
from fma_connect.clients.developer_client import DeveloperClient
from fma_connect.clients.web_client import WebClient

__all__ = ["Client", "DeveloperClient", "WebClient"]
