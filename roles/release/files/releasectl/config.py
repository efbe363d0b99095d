"""What the role ``release`` tells this program: /etc/slipway/releasectl.json, checked on reading."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from .errors import Refusal

DEFAULT_PATH = Path("/etc/slipway/releasectl.json")


@dataclass(frozen=True)
class Config:
    """Paths, users and limits; sizes are in bytes, times in seconds."""

    # The app's name; what migrates it holds a lock that is called by it.
    app: str = "app"
    app_user: str = "app"
    app_group: str = "app"
    build_user: str = "app-build"
    domain: str = "localhost"
    python_version: str = "3.11"
    # How the app is built and run (app.py); what is empty is guessed from its code.
    directory: str = ""
    python_path: tuple[str, ...] = ()
    settings_module: str = ""
    wsgi: str = ""
    asgi: str = ""
    celery_app: str = ""
    requirements: str = ""
    # More lines of requirements, what of pyproject.toml's optional dependencies is wanted, and whether requirements
    # without hashes are installed.
    requirements_extra: tuple[str, ...] = ()
    requirements_optional: tuple[str, ...] = ()
    requirements_unhashed: bool = False
    # Whether there are settings of the operator's own, and what the app may write.
    settings_overlay: bool = False
    writable: tuple[str, ...] = ()
    # Which processes this host runs: gunicorn, celery-worker, celery-beat, and app-<name> of the app's own. Those
    # are of two kinds: workers, that take over as Celery's do, and singles, of which one runs at a time as of beat.
    processes: tuple[str, ...] = ("gunicorn",)
    workers: tuple[str, ...] = ("celery-worker",)
    singles: tuple[str, ...] = ("celery-beat",)
    # The units of what a timer starts: app-job-<name>.
    jobs: tuple[str, ...] = ()

    releases: Path = Path("/opt/app/releases")
    # One for each lock file that a release was made with: see venvs.py.
    venvs: Path = Path("/opt/app/venvs")
    current: Path = Path("/opt/app/current")
    incoming: Path = Path("/opt/app/incoming")
    state: Path = Path("/var/lib/app")
    env: Path = Path("/etc/app/env")
    run: Path = Path("/run/app")
    private_run: Path = Path("/run/slipway")
    static: Path = Path("/var/www/app/static")
    events: Path = Path("/var/log/app/releases")
    build_cache: Path = Path("/var/cache/app-build")
    uv: Path = Path("/usr/local/bin/uv")
    # What runs in the app's own Python.
    inside: Path = Path("/usr/local/lib/slipway/inside")
    serving: Path = Path("/usr/local/lib/slipway/app")
    # Whether this host is an edge, what closes its site for maintenance while it is there, and who did so when.
    edge: bool = False
    maintenance_file: Path = Path("/var/lib/slipway/maintenance.json")
    maintenance_history: Path = Path("/var/log/slipway/maintenance.jsonl")

    # What a build and collectstatic may see; harmless by definition, never a secret.
    build_environment: dict[str, str] = field(default_factory=dict)
    build_settings: dict[str, str] = field(default_factory=dict)
    build_timeout: int = 900
    build_memory_max: str = "2G"

    artifact_max_bytes: int = 200 * 1024 * 1024
    unpacked_max_bytes: int = 1024 * 1024 * 1024
    unpacked_max_entries: int = 50_000
    unpacked_max_depth: int = 32
    # Whether room on the disks, and in memory for a second generation, is looked at before anything starts.
    disk_check: bool = True
    free_min_bytes: int = 256 * 1024 * 1024
    memory_check: bool = True
    memory_min_bytes: int = 64 * 1024 * 1024
    # 0 is no bound.
    build_cache_max_bytes: int = 2 * 1024 * 1024 * 1024

    # Releases from images (image.py, store.py): whether there are any, where they may come from and as whom, and what
    # is asked of them. `image_command` stands in for the image's own, `image_paths` are shown to it read-only.
    images: bool = False
    image_registries: tuple[str, ...] = ()
    image_credentials: Path = Path("/etc/slipway/registry-auth.json")
    image_policy: Path = Path("/etc/containers/policy.json")
    image_keys: Path = Path("/etc/slipway/image-signature.pub")
    image_signatures: str = "ignored"
    image_sbom: str = "ignored"
    image_store: Path = Path("/var/lib/containers/slipway")
    image_run: Path = Path("/run/containers/slipway")
    image_max_bytes: int = 4 * 1024 * 1024 * 1024
    image_pull_timeout: int = 900
    image_command: tuple[str, ...] = ()
    image_paths: tuple[str, ...] = ("/etc/passwd", "/etc/group", "/etc/resolv.conf", "/etc/hosts")
    # What the units start, and where a drop-in of one generation goes.
    launcher: Path = Path("/usr/local/libexec/slipway/generation")
    dropins: Path = Path("/run/systemd/system")
    units: Path = Path("/etc/systemd/system")

    # Empty: what the app's code says, or else any answer of / below 500.
    health_path: str = ""
    health_timeout: int = 30
    health_successes: int = 2
    health_failures: int = 5
    # What a new generation is asked until its workers are warm (warm.py).
    warm_up_paths: tuple[str, ...] = ("/",)
    # What a new generation is asked on its own socket before it may go live (see smoke.py), and the app's own command.
    smoke_tests: list[dict[str, object]] = field(default_factory=list)
    smoke_command: tuple[str, ...] = ()
    smoke_command_timeout: int = 300
    # How long a release that was just activated is watched, what share of its answers may be errors, of how many at
    # least, and where nginx writes its answers (empty: nowhere that counts).
    watch_seconds: int = 0
    watch_error_rate: float = 0.05
    watch_min_requests: int = 20
    watch_log: str = "/var/log/nginx/access.log"
    drain_timeout: int = 60
    drain: bool = True
    migrate_timeout: int = 900
    # Whether a release's hooks run, and for how long each may.
    hooks: bool = True
    hook_timeout: int = 60
    migrate_lock_timeout: int = 5
    migrate_statement_timeout: int = 300
    migrate_big_table_rows: int = 1_000_000
    # Where restore points go, over ssh as user@host, by a key of this host's own and to that host's key; and for whom
    # they are encrypted (a public key of age; empty: not at all).
    restore_point_target: str = ""
    restore_point_port: int = 22
    restore_point_recipient: str = ""
    restore_point_timeout: int = 3600
    restore_point_keys: Path = Path("/etc/slipway/restore-point")
    keep: int = 5
    # Files that decide how a generation runs: when they change, the live release is due for a restart.
    unit_files: tuple[str, ...] = ()
    lease_seconds: int = 900
    # Whether edges reach this host over the network, and the other hosts that they can take instead.
    door: bool = False
    others: tuple[str, ...] = ()

    def release_dir(self, release: str) -> Path:
        """Where a release lives; the id must have been checked before."""
        return self.releases / release

    def how_it_runs(self) -> str:
        """What of this decides how a generation runs."""
        names = ("directory", "python_path", "settings_module", "wsgi", "asgi", "celery_app", "settings_overlay")
        return json.dumps([getattr(self, name) for name in names])

    @property
    def socket(self) -> Path:
        """The link that nginx follows at every connect."""
        return self.run / "current.sock"

    def make_directories(self) -> None:
        """What this program keeps for itself, root only."""
        for path in (
            self.private_run,
            self.private_run / "env",
            self.private_run / "jobs",
            self.state / "generations",
            self.state / "staging",
        ):
            path.mkdir(mode=0o700, exist_ok=True)
        self.venvs.mkdir(mode=0o755, exist_ok=True)

    def generation_socket(self, generation: object) -> Path:
        """The socket on which one generation listens."""
        return self.run / str(generation) / "gunicorn.sock"

    @classmethod
    def load(cls, path: Path = DEFAULT_PATH) -> Config:
        """Read the file; an unknown key or a wrong type is refused with the key's name."""
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            raise Refusal(f"{path} is missing: run the playbook site.yml for this host.") from None
        except ValueError as error:
            raise Refusal(f"{path} is not JSON ({error}): run the playbook site.yml for this host.") from None
        return cls.from_mapping(raw, str(path))

    @classmethod
    def from_mapping(cls, raw: dict[str, object], origin: str = "the configuration") -> Config:
        """Build from plain values, converting paths and lists."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, object] = {}
        for key, value in raw.items():
            if key not in known:
                raise Refusal(f"{origin} sets {key!r}, which this version does not know: run the playbook site.yml.")
            default = getattr(cls, key, None)
            if isinstance(default, Path):
                values[key] = Path(str(value))
            elif isinstance(default, tuple):
                values[key] = tuple(str(item) for item in value) if isinstance(value, list) else ()
            elif default is not None and type(value) is not type(default):
                raise Refusal(f"{origin} sets {key!r} to a {type(value).__name__}, not a {type(default).__name__}.")
            else:
                values[key] = value
        return cls(**values)  # type: ignore[arg-type]
