"""Where settings come from, and what is wrong with them. `layers` says which place beats which."""

from observer_actors.config.default_file import default_file, toml_value
from observer_actors.config.layers import Places
from observer_actors.config.reading import DEFAULT_ORIGIN, Loaded, read_settings
from observer_actors.config.reloading import RELOADABLE, changed_files, reload_settings
from observer_actors.config.schema import LEAVES, leaves_of
from observer_actors.config.secret_files import SECRET_FILES, digests_of, is_for_all

__all__ = [
    "DEFAULT_ORIGIN",
    "LEAVES",
    "RELOADABLE",
    "SECRET_FILES",
    "Loaded",
    "Places",
    "changed_files",
    "default_file",
    "digests_of",
    "is_for_all",
    "leaves_of",
    "read_settings",
    "reload_settings",
    "toml_value",
]
