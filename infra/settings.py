"""Read the environment once, at the edge of a process, into a frozen value."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Hold every setting of every process; each comes from `IMAGEFLEET_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="IMAGEFLEET_", frozen=True, extra="ignore")

    #: Everything a single machine keeps: databases, pictures, keys, logs.
    home: Path = Path(".imagefleet")
    #: A real server instead of the embedded one: `postgresql://user:password@host:port/name`.
    database_url: str | None = None
    #: A real server instead of the embedded one: `redis://:password@host:port/0`.
    redis_url: str | None = None
    #: Where pictures go: `file:///path`, `s3://bucket/prefix`, `memory:///`; the home folder's `storage` when unset.
    storage_url: str | None = None
    #: An S3-compatible server instead of AWS, e.g. `http://127.0.0.1:9000`.
    storage_endpoint: str | None = None

    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    #: Where clients find the API; by default built from host and port.
    url: str | None = None
    #: The key the command line sends; by default read from the home folder's `api-key`.
    api_key: str | None = None

    #: Host names the API answers under, separated by commas, besides the machine's own loopback names; any when empty.
    hosts: str = ""
    #: Web sites besides the API's own whose pages may open its WebSocket, separated by commas: `https://studio.example`; `*` for any.
    origins: str = ""
    #: Flower's pages on the loopback address, and the password it was started with; `up` sets both.
    flower_url: str | None = None
    flower_password: str | None = None

    #: Where models are fetched from: mirrors of these sites take their place. Tokens go to these addresses alone.
    hub_endpoint: str = "https://huggingface.co"
    hub_token: SecretStr | None = None
    civitai_endpoint: str = "https://civitai.com"
    civitai_token: SecretStr | None = None
    #: Hosts and networks, separated by commas, that may be fetched from although they are not public: `models.lan, 10.0.0.0/8`.
    fetch_allow: str = ""
    #: Models fetched at once.
    parallel_downloads: int = Field(default=2, ge=1, le=32)
    #: The largest model that is taken, from whomever; and the largest archive of them, as it comes and unpacked.
    max_model_bytes: int = Field(default=64 * 1024**3, gt=0)
    #: Bytes of a disk that taking models in leaves free.
    disk_headroom_bytes: int = Field(default=1024**3, ge=0)
    #: An upload that nobody goes on with is forgotten after so long.
    upload_hours: float = Field(default=24.0, gt=0)

    #: Folders scanned for models, separated by the system's path separator in the environment.
    models: str = ""

    #: Where this host keeps models that its workers took from storage; by default the home folder's `cache`.
    cache: Path | None = None
    #: The most that may lie there: what was used longest ago leaves first.
    cache_bytes: int = Field(default=200 * 1024**3, gt=0)
    #: The keeper looks through the model folders so often, seconds; 0 leaves it to `imagefleet models scan`.
    watch_seconds: float = Field(default=30.0, ge=0)

    #: `cpu`, `cuda:0`, `mps`; `auto` takes every GPU, or the CPU where there is none.
    device: str = "auto"
    #: Extra tags a worker serves, separated by commas.
    tags: str = ""
    engine: Literal["local", "fake"] = "local"
    #: Bytes of memory a worker's device counts as having, in place of what was found.
    memory_bytes: int | None = Field(default=None, gt=0)
    #: CPU threads an engine may use; by default a CPU worker's share of the cores, and on a GPU what torch chooses.
    threads: int | None = Field(default=None, ge=1)
    #: How long a starting worker waits for the database and Redis before it gives up.
    start_limit_seconds: float = Field(default=60.0, gt=0)
    #: How many workers `up` starts on a machine without a GPU.
    cpu_workers: int = Field(default=1, ge=1, le=64)

    #: A running job is lost when its worker has not renewed it for so long (database clock).
    lease_seconds: float = Field(default=8.0, gt=0)
    #: How often a worker renews leases and hears of cancels; well below a third of the lease.
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    load_limit_seconds: float = Field(default=900.0, gt=0)
    encode_limit_seconds: float = Field(default=120.0, gt=0)
    step_limit_seconds: float = Field(default=120.0, gt=0)
    decode_limit_seconds: float = Field(default=120.0, gt=0)
    store_limit_seconds: float = Field(default=120.0, gt=0)
    #: On SIGTERM a worker finishes what ends within this time and hands the rest back.
    drain_seconds: float = Field(default=20.0, ge=0)

    keeper_seconds: float = Field(default=2.0, gt=0)
    retention_days: float = Field(default=30.0, gt=0)

    max_body_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    #: A request whose body sends nothing for so long is given up.
    body_pause_seconds: float = Field(default=10.0, gt=0)
    max_pixels: int = Field(default=16 * 1024 * 1024, gt=0)

    #: A synchronous job whose last watcher has left is joined by the same request within this time, and cancelled after it ...
    hang_up_seconds: float = Field(default=20.0, ge=0)
    #: ... unless it is to be kept.
    hang_up: Literal["cancel", "keep"] = "cancel"
    #: The key under which A1111 clients that send none act; without it they are asked for one.
    sdapi_key: str | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @property
    def storage(self) -> str:
        """Return the URL of the storage that is in force."""
        return self.storage_url or (self.home.absolute() / "storage").as_uri()

    @property
    def model_cache(self) -> Path:
        """Return the folder for models from storage that is in force."""
        return (self.cache or self.home / "cache").absolute() / "models"
