"""Where this gateway's records go, by its configuration. Constructing an exporter opens nothing."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.config.load import influxdb_token, semantic_conventions
from penstock.telemetry.exporters.influxdb import InfluxDBExporter
from penstock.telemetry.exporters.log import LogExporter
from penstock.telemetry.exporters.opentelemetry import OpenTelemetryExporter
from penstock.telemetry.exporters.sqlite import SqliteExporter
from penstock.telemetry.gen_ai import names_of

if TYPE_CHECKING:
    from penstock.config.model import Config
    from penstock.telemetry.exporters.base import Exporter


def exporters(config: Config) -> list[Exporter]:
    found: list[Exporter] = []
    log, store = config.telemetry.log, config.telemetry.store
    if log.format != "off":
        found.append(
            LogExporter(
                sys.stdout,
                format=log.format,
                color=sys.stdout.isatty(),
                is_shared=config.server.workers > 1,
                debug=log.debug,
            )
        )
    if store.path is not None:
        found.append(SqliteExporter(store.path, keep_s=store.keep))
    influxdb = config.telemetry.influxdb
    if influxdb.url is not None:
        found.append(
            InfluxDBExporter(
                influxdb.url,
                version=influxdb.version,
                org=influxdb.org,
                database=(influxdb.bucket if influxdb.version == 2 else influxdb.database) or "",
                token=influxdb_token(config),
                precision=influxdb.precision,
                spool=Path(influxdb.spool) if influxdb.spool is not None else None,
                spool_bytes=influxdb.spool_size,
            )
        )
    opentelemetry = config.telemetry.opentelemetry
    if opentelemetry.endpoint is not None:
        found.append(
            OpenTelemetryExporter(
                opentelemetry.endpoint,
                protocol=opentelemetry.protocol,
                names=names_of(semantic_conventions()),
                version=version("penstock"),
            )
        )
    return found
