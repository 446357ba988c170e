"""Why a value that should be a class, or a file that names one, cannot be used."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import yaml
from jsonargparse import Namespace
from jsonargparse._typehints import get_all_subclass_paths
from lightning.pytorch import LightningDataModule
from omegaconf import OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

OWN = ("lit_mm", "data_modules", "callbacks")  # packages of this program
_FOLDERS = tuple(Path(__file__).parents[2] / name for name in OWN)
_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
_HOW = "; give a file, or package.module.Class"


def why_unusable(value: object, bases: tuple[type, ...]) -> str | None:
    """What is wrong with a value that is to be a class, or several.

    Args:
        value: name of a file or a class, or what such a file holds.
        bases: of the classes that are accepted.

    Returns:
        What can stand behind the name of a key; None if nothing is wrong with the classes and files themselves.
    """
    if isinstance(value, list):
        return next((why for item in value if (why := why_unusable(item, bases))), None)
    if isinstance(value, Mapping | Namespace):
        name = value.get("class_path")
        return why_unusable(name, bases) if isinstance(name, str) else None
    if not isinstance(value, str):
        return None
    if Path(value).is_file():
        return _in_file(Path(value), bases)
    if Path(value).is_dir():
        how = "; write a YAML file that names the folder as its `train`" if _of_data(bases) else ""
        return f"is '{value}', which is a folder; give a YAML file, or package.module.Class{how}"
    if _is_path(value):
        return f"is '{value}', but there is no such file{nearest_file(value)}"
    if "." in value and all(part.isidentifier() for part in value.split(".")):
        return _of_class(value, bases)
    names = {path.rpartition(".")[2] for base in bases for path in get_all_subclass_paths(base)}
    return f"is '{value}', which is neither a file nor a class known here{nearest(value, names) or _HOW}"


def why_no_values(value: object) -> str | None:
    """The same of a value that is to be a mapping of fixed keys, such as `data.loader`, or a file that holds one."""
    if not isinstance(value, str):
        return None
    if Path(value).is_dir():
        return f"is '{value}', which is a folder; give a YAML file"
    if not Path(value).is_file():
        return f"is '{value}', but there is no such file{nearest_file(value)}" if _is_path(value) else None
    if problem := file_error(Path(value)):
        return f"is '{value}', {problem}"
    if not isinstance(yaml.safe_load(Path(value).read_text(encoding="utf-8")), dict):
        return f"is '{value}', which holds no keys; write NAME: VALUE into it"
    return None


def is_empty(value: object) -> bool:
    """Whether a value is the name of a YAML file in which nothing stands, or comments alone. No more is read of it."""
    if not isinstance(value, str) or not _is_path(value) or not Path(value).is_file():
        return False
    with Path(value).open(encoding="utf-8", errors="replace") as lines:
        return all(not line.strip() or line.lstrip().startswith("#") or line.strip() == "---" for line in lines)


def _is_path(value: str) -> bool:
    return Path(value).suffix in (".yaml", ".yml", ".json") or "/" in value


def _of_data(bases: tuple[type, ...]) -> bool:
    return any(issubclass(base, LightningDataModule) for base in bases)


def nearest(wrong: str, names: Iterable[str]) -> str:
    """`; did you mean '…'?` where one of the names is like the wrong one, or nothing."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wrong.lower(), by_lower, n=1)
    initials = "".join(word[:1] for word in wrong.lower().split("_"))  # `learning_rate` is usually `lr`
    near = near or [name for name in by_lower if len(name) > 1 and name == initials]
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def nearest_file(wrong: str) -> str:
    """The same for a file: those of its folder, or of the folders beside one that is not there."""
    path = Path(wrong)
    folder, pattern = (path.parent, "*") if path.parent.is_dir() else (path.parent.parent, "*/*")
    files = {file.stem: str(file) for file in folder.glob(pattern) if file.is_file()} if folder.is_dir() else {}
    near = difflib.get_close_matches(path.stem, files, n=1)
    return f"; did you mean '{files[near[0]]}'?" if near else ""


def is_users(file: str) -> bool:
    """Whether a source file belongs neither to this program nor to what is installed."""
    path = Path(file)
    return path.is_file() and not any(path.is_relative_to(folder) for folder in (*_FOLDERS, *_INSTALLED))


def place_of(error: BaseException) -> str | None:
    """`'FILE', line N: Error: message`, of the last line of a user's own file that an error came from.

    Returns:
        None where no such file had part in it.
    """
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError) and error.filename and is_users(error.filename):
        return f"'{error.filename}', line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    if not frames:
        return None
    return f"'{frames[-1].filename}', line {frames[-1].lineno}: {said}"


def yaml_error(file: Path) -> str | None:
    """What makes a file no YAML, or None."""
    try:
        yaml.safe_load(file.read_text(encoding="utf-8"))
        OmegaConf.load(file)  # which finds keys that come twice
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        return f"not YAML ({line}{error.problem}); correct it"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"not YAML in UTF-8 ({error}); save it as that"
    except KeyValidationError as error:
        where = f" in {error.full_key}" if error.full_key else ""
        return f"without a name{where}: a key there is null or a list; put it in quotes"
    except (OSError, OmegaConfBaseException):  # a plain text, say; what refers to nothing is told where it is resolved
        return None
    return None


def file_error(file: Path) -> str | None:
    """What keeps a YAML file that is given as a value from being read, to stand behind its name; or None."""
    if problem := yaml_error(file):
        return f"which is {problem}"
    try:
        OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except OmegaConfBaseException as error:
        return f"which has {interpolation_error(error)}"
    except OSError:  # a plain text, say
        return None
    return None


def interpolation_error(error: OmegaConfBaseException) -> str:
    """What is wrong with a `${…}`, and where it stands."""
    reason = str(error.msg or error).splitlines()[0]
    where = f" in {error.full_key}" if error.full_key else ""
    return f"a ${{…}}{where} that leads nowhere: {reason}"


def _in_file(file: Path, bases: tuple[type, ...]) -> str | None:
    if problem := file_error(file):
        return f"is '{file}', {problem}"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict | list):
        return f"is '{file}', which names no class; write class_path: package.module.Class into it"
    why = why_unusable(content, bases)
    return None if why is None else f"is '{file}', whose class_path {why}"


def _of_class(name: str, bases: tuple[type, ...]) -> str | None:
    module_name, _, class_name = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            return f"is '{name}', but there is no module '{error.name}' {_where_looked(error.name)}"
        return _broken(name, error)
    except Exception as error:
        return _broken(name, error)
    if not hasattr(module, class_name):
        near = nearest(class_name, _classes(module, bases)) or nearest(class_name, dir(module))
        return f"is '{name}', but module '{module_name}' has no '{class_name}'{near}"
    found = getattr(module, class_name)
    wanted = " or ".join(dict.fromkeys(base.__name__ for base in bases))
    if not inspect.isclass(found):
        return None if callable(found) else f"is '{name}', which is no class but {found!r}; give a {wanted}"
    if bases and not issubclass(found, bases):
        return f"is '{name}', which is no {wanted}; give a class derived from that"
    if inspect.isabstract(found):
        missing = sorted(vars(found)["__abstractmethods__"])
        them = "it" if len(missing) == 1 else "them"
        return f"is '{name}', which is abstract: write its {', '.join(missing)}, or name a class that has {them}"
    return None


def _broken(name: str, error: Exception) -> str:
    where = place_of(error) or f"{type(error).__name__}: {error}"
    return f"is '{name}', whose module cannot be imported: {where}"


def _where_looked(name: str) -> str:
    parent, _, last = name.rpartition(".")
    if not parent:
        near = nearest(last, (module.name for module in pkgutil.iter_modules([str(Path.cwd())])))
        return f"in the working folder '{Path.cwd()}' or among installed packages{near}"
    inside = getattr(sys.modules.get(parent), "__path__", None)
    if inside is None:
        return f"since '{parent}' is no package; give package.module.Class"
    return f"in '{parent}'{nearest(last, (module.name for module in pkgutil.iter_modules(inside)))}"


def _classes(module: ModuleType, bases: tuple[type, ...]) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, bases)]
