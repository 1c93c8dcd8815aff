"""The ensemble as one model behind one OpenAI-compatible endpoint."""

from octavo.runtime.server.app import make_app
from octavo.runtime.server.run import serve
from octavo.runtime.server.settings import ServerSettings, read_keys

__all__ = ["ServerSettings", "make_app", "read_keys", "serve"]
