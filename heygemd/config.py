"""Settings: command line > HEYGEMD_* environment > TOML file > defaults. A typo is an error, never a setting.

`load_settings` merges the layers itself, so that it can tell in which file or variable a wrong value stands.
`Settings(...)` alone reads nothing but its arguments.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from heygemd.core.errors import ConfigError
from heygemd.core.settings import (
    EngineSettings,
    InboxSettings,
    LimitSettings,
    LogSettings,
    MediaSettings,
    MetricsSettings,
    ProvenanceSettings,
    RaySettings,
    RetentionSettings,
    SchedulerSettings,
    ServiceSettings,
    WebSettings,
)

DEFAULT_FILE = Path("/etc/heygemd/heygemd.toml")
DEFAULT_ROOT = Path("/srv/heygemd")
PREFIX = "HEYGEMD_"
CONFIG_VARIABLE = "HEYGEMD_CONFIG"
"""Names the file when `--config` does not."""

NOT_SETTINGS = (CONFIG_VARIABLE, "HEYGEMD_FAILPOINT", "HEYGEMD_FAILPOINTS")
"""HEYGEMD_ variables with a meaning of their own. So have all that begin with HEYGEMD_TEST_."""


def _default_state(validated: dict[str, Any]) -> Path:
    # systemd sets STATE_DIRECTORY for the service; a list when the unit names several, and ours is the first.
    service = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(service) if service else Path(validated.get("root", DEFAULT_ROOT)) / ".state"


class Settings(BaseSettings):
    """Everything an operator can set. Frozen; a reload makes a new one."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        validate_default=True,
    )

    root: Path = Field(DEFAULT_ROOT, description="the share: inbox, outbox, failed, archive and status lie below it")
    state: Path = Field(
        default_factory=_default_state,
        description="journal and work files, on a local disk; default: the service's StateDirectory, else ROOT/.state",
    )
    inbox: InboxSettings = InboxSettings()
    limits: LimitSettings = LimitSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    ray: RaySettings = RaySettings()
    media: MediaSettings = MediaSettings()
    provenance: ProvenanceSettings = ProvenanceSettings()
    engines: EngineSettings = EngineSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    service: ServiceSettings = ServiceSettings()
    web: WebSettings = WebSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def checkpoint_dir(self) -> Path:
        """Where the operator's checkpoints lie."""
        return (
            Path(self.engines.checkpoint_dir).expanduser()
            if self.engines.checkpoint_dir
            else self.state / "checkpoints"
        )

    @property
    def face_detector_file(self) -> Path | None:
        """Weights of the face detector, where the operator names them."""
        return Path(self.engines.face_detector_file).expanduser() if self.engines.face_detector_file else None

    @property
    def landmarks_file(self) -> Path | None:
        """Weights of the landmarks' network, where the operator names them."""
        return Path(self.engines.landmarks_file).expanduser() if self.engines.landmarks_file else None


class _Environment(EnvSettingsSource):
    """The HEYGEMD_* variables. A list may be JSON or simply a,b,c; one value is a list of one."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        is_list = typing.get_origin(field.annotation) is tuple
        try:
            decoded = json.loads(value)
        except ValueError:
            if is_list:
                return [part.strip() for part in str(value).split(",") if part.strip()]
            raise
        return [decoded] if is_list and not isinstance(decoded, list | dict) else decoded


@dataclass(frozen=True)
class _Layer:
    """One source of values. `style` tells how its keys are spelled in messages."""

    name: str
    values: dict[str, Any]
    style: str  # file, environment, command line

    def spell(self, keys: tuple[str, ...]) -> str:
        if self.style == "environment":
            return PREFIX + "__".join(keys).upper()
        return ".".join(keys)

    def has(self, keys: tuple[str, ...]) -> bool:
        here: Any = self.values
        for key in keys:
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return True


def config_file(config: Path | None) -> Path | None:
    """The file that is read: `--config`, else $HEYGEMD_CONFIG, else the system's one where it exists."""
    if config is not None:
        return config
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Merge file, environment and command line. `overrides` is nested like the file; None values count as not given.

    Raises ConfigError that names the first wrong key, where it stands and what is allowed; `details["problems"]` lists
    every problem, one line each.
    """
    file = config_file(config)
    layers = [
        _Layer(str(file), _read_file(file), "file") if file else _Layer("", {}, "file"),
        _Layer("the environment", _read_environment(), "environment"),
        _Layer("the command line", _without_none(overrides or {}), "command line"),
    ]
    problems = [problem for layer in layers for problem in _unknown_keys(layer)]
    problems += _unknown_variables()
    if problems:
        raise _error(problems, file)
    try:
        return Settings(**_merge(layers))
    except ValidationError as error:
        raise _error([_sentence(dict(e), layers) for e in error.errors(include_url=False)], file) from None


def _error(problems: list[str], file: Path | None) -> ConfigError:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(problems[0] + more, path=str(file) if file else None, problems=problems)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            values = tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file", path=str(path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", path=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text", path=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}", path=str(path)) from None
    for key in ("root", "state"):
        # Relative to the file, not to wherever the daemon happens to be started.
        if isinstance(values.get(key), str):
            values[key] = str(path.absolute().parent / Path(values[key]).expanduser())
    return values


def _read_environment() -> dict[str, Any]:
    try:
        return dict(_Environment(Settings)())
    except ValueError as error:  # pydantic-settings wraps what decode_complex_value raised
        raise ConfigError(f"the environment: {error}".replace("\n", " ")) from None


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            kept[key] = _without_none(value)
        elif value is not None:
            kept[key] = value
    return kept


def _merge(layers: list[_Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        if "root" in layer.values and layer.values["root"] != merged.get("root"):
            # The journal of one share must never serve another: a weaker layer's `state` went with its own root.
            merged.pop("state", None)
        for key, value in layer.values.items():
            if isinstance(value, dict) and isinstance(merged.get(key), dict):
                merged[key] = {**merged[key], **value}
            else:
                merged[key] = value
    for key in ("root", "state"):
        if isinstance(merged.get(key), str | Path):
            merged[key] = Path(merged[key]).expanduser().absolute()
    return merged


def sections() -> dict[str, type[BaseModel]]:
    """The tables of the file, in order."""
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def all_keys() -> list[tuple[str, ...]]:
    """Every key that may be set: ("root",), ("inbox", "scan_seconds"), …"""
    tables = sections()
    keys: list[tuple[str, ...]] = [(name,) for name in Settings.model_fields if name not in tables]
    return keys + [(name, key) for name, table in tables.items() for key in table.model_fields]


def _unknown_keys(layer: _Layer) -> Iterator[str]:
    known = set(all_keys())
    tables = sections()
    for name, value in layer.values.items():
        if (name,) in known:
            continue
        if name not in tables:
            yield _unknown(layer, (name,))
        elif isinstance(value, dict):
            yield from (_unknown(layer, (name, key)) for key in value if (name, key) not in known)
        # A table that is no table is reported by the validation.


def _unknown(layer: _Layer, keys: tuple[str, ...]) -> str:
    spelled = {layer.spell(known): known for known in all_keys()}
    if len(keys) == 1:
        spelled |= {layer.spell((name,)): (name,) for name in sections()}
    near = difflib.get_close_matches(layer.spell(keys), list(spelled), n=1, cutoff=0.6)
    if not near:  # the right key in the wrong table
        near = [layer.spell(known) for known in all_keys() if known[-1] == keys[-1]][:1]
    if near:
        hint = f"did you mean {near[0]}?"
    elif len(keys) == 2:
        hint = "known are " + ", ".join(sections()[keys[0]].model_fields)
    else:
        hint = "known are " + ", ".join(Settings.model_fields)
    return f"{layer.name}: {layer.spell(keys)}: unknown key; {hint}"


def _unknown_variables() -> Iterator[str]:
    """Variables that look like ours but set nothing. Those below a known table are `_unknown_keys`' work."""
    tables = {PREFIX + name.upper() for name in sections()}
    known = tables | {PREFIX + "__".join(keys).upper() for keys in all_keys()} | set(NOT_SETTINGS)
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith(PREFIX + "TEST_"):
            continue
        if upper.partition("__")[0] in tables and "__" in upper:
            continue
        near = difflib.get_close_matches(upper, sorted(known), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "config/heygemd.toml documents every key"
        yield f"the environment: {name}: unknown variable; {hint}"


def _sentence(error: dict[str, Any], layers: list[_Layer]) -> str:
    keys = tuple(str(part) for part in error["loc"] if not isinstance(part, int))
    layer = next((layer for layer in reversed(layers) if layer.has(keys)), layers[-1])
    message = (
        error["msg"]
        .removeprefix("Value error, ")
        .replace("Input should be", "must be")
        .replace("a valid tuple", "a list, in brackets")
    )
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{layer.name}: {layer.spell(keys)}: {message}{shown}"


def document() -> str:
    """config/heygemd.toml: every key with its meaning, its limits and its default. A test keeps the file in step."""
    lines = [
        "# Configuration of heygemd. Every key is here with its default; take the # away to change one.",
        "# Stronger than this file: HEYGEMD_* variables (HEYGEMD_INBOX__SCAN_SECONDS=2), then the command line.",
        "# `heygemd check-config` says what is wrong; `systemctl reload heygemd` takes a changed file over.",
        "",
        f"# {Settings.model_fields['root'].description}",
        f'#root = "{DEFAULT_ROOT}"',
        "",
        f"# {Settings.model_fields['state'].description}",
        '#state = "/var/lib/heygemd"',
    ]
    for name, table in sections().items():
        lines += ["", "", f"# {(table.__doc__ or '').splitlines()[0]}", f"[{name}]"]
        for key, field in table.model_fields.items():
            lines += ["", f"# {field.description or key}{_limits(field)}", f"#{key} = {_toml(field.default)}"]
    return "\n".join(lines) + "\n"


def _limits(field: FieldInfo) -> str:
    parts = []
    if typing.get_origin(field.annotation) is typing.Literal:
        parts.append("one of " + ", ".join(map(str, typing.get_args(field.annotation))))
    for sign, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        for limit in field.metadata:
            value = getattr(limit, sign, None)
            if value is not None:
                parts.append(f"{words} {value}")
    return f" ({'; '.join(parts)})" if parts else ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 10_000:
        return f"{value:_}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)
