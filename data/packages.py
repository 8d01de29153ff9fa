"""Files inside installed Python packages, found without importing the package."""

from importlib.util import find_spec
from pathlib import Path

from walras.data.errors import DataError


def packaged(file: str, *, name: str) -> Path:
    """The path of a file of an optional package.

    Args:
        file: the package, then the path inside it, such as "causaldata/avocado/avocado.dta".
        name: the data set that needs it.

    Raises:
        DataError: the package is not installed, or does not have the file.
    """
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    places = [Path(place) / inside for place in (spec.submodule_search_locations or [] if spec else [])]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        state = "which is not installed" if spec is None else f"but the one installed has no file {inside}"
        raise DataError(f"data set {name!r} needs the package {package}, {state}: pip install 'walras[datasets]'")
    return found
