"""Where settings come from, and what is wrong with them. `layers` says which place beats which."""

from observer_actors.config.default_file import default_file, toml_value
from observer_actors.config.layers import Places
from observer_actors.config.reading import DEFAULT_ORIGIN, Loaded, read_settings
from observer_actors.config.reloading import REREAD, changed_files, reload_settings
from observer_actors.config.schema import LEAVES, leaves_of
from observer_actors.config.secret_files import digests_of, exposed_files, is_for_all, read_secret

__all__ = [
    "DEFAULT_ORIGIN",
    "LEAVES",
    "REREAD",
    "Loaded",
    "Places",
    "changed_files",
    "default_file",
    "digests_of",
    "exposed_files",
    "is_for_all",
    "leaves_of",
    "read_secret",
    "read_settings",
    "reload_settings",
    "toml_value",
]
