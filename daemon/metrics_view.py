"""What `sleepyctl metrics` tells: rates, and the metrics of a life, from its store; by the daemon, or without one."""

from __future__ import annotations

from agent.models.purse import Price
from daemon.config import Config, load_config
from daemon.home import Home
from daemon.views import Metrics
from daemon.views import metrics as rates
from eval.metrics.config import MetricsConfig
from eval.metrics.lived import LifeMetrics, metrics_of
from eval.metrics.stored import read_life
from memory.arms import Arm
from memory.store import Store


class Measured(Metrics):
    """Rates of the stream, and what a life measures by."""

    config_hash: str
    source: str
    model: str
    arm: Arm
    life: LifeMetrics


def prices(config: MetricsConfig) -> Price | None:
    """Dollars for a million tokens, where they are known."""
    if not (config.price_input or config.price_output):
        return None
    return Price(input=config.price_input, output=config.price_output)


def measured(store: Store, config: Config) -> Measured:
    """From the store, with the prices and controls that are configured."""
    life = metrics_of(read_life(store, control_share=config.watch.control_share), prices(config.metrics))
    return Measured(
        **dict(rates(store)),
        config_hash=config.hash,
        source=config.tasks.source,
        model=config.model.kind,
        arm=config.arm,
        life=life,
    )


def measured_of(home: Home, store: Store) -> Measured:
    """The same where no daemon runs, under the configuration that one would read."""
    return measured(store, load_config(home.config if home.config.exists() else None))
