"""Run files taken apart and put together again, so that tests can damage any part of them."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path
from typing import Any

#: What is JSON inside the file.
_JSON = {"head", "gates", "top"}


def taken_apart(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Table -> rows as plain data; counts as base64 text."""
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    tables = {}
    for table in ("run", "sample", "notice"):
        rows = [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
        tables[table] = [{k: _plain(k, v) for k, v in row.items()} for row in rows]
    db.close()
    return tables


def put_together(path: Path, model: Path, tables: dict[str, Any]) -> None:
    """A file with the tables of another and these rows; whatever SQLite takes."""
    path.write_bytes(model.read_bytes())
    db = sqlite3.connect(path)
    for table, rows in tables.items():
        if table not in ("run", "sample", "notice") or not isinstance(rows, list):
            continue
        db.execute(f"DELETE FROM {table}")
        for row in rows:
            if isinstance(row, dict) and row:
                values = [_stored(k, v) for k, v in row.items()]
                marks = ", ".join("?" * len(values))
                try:
                    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", values)
                except (sqlite3.Error, OverflowError):
                    continue  # SQLite refuses it: nobody can store it
    db.commit()
    db.close()


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json.loads(value) if key in _JSON else value


def _stored(key: str, value: Any) -> Any:
    if key in _JSON or isinstance(value, dict | list):
        return json.dumps(value)
    if key == "counts" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            return value
    return value
