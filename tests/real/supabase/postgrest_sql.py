"""PostgREST's requests as SQL: the few that our code makes. Anything else is refused with 501."""

from __future__ import annotations

import json
import re
from typing import Any

import asyncpg
from aiohttp import web

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_FULL_TEXT = {
    "fts": "to_tsquery",
    "plfts": "plainto_tsquery",
    "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}
_COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Refusal(Exception):
    """An answer in PostgREST's error format."""

    def __init__(self, status: int, code: str | None, message: str, **more: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "details": None, "hint": None} | more


def unknown(what: str) -> Refusal:
    return Refusal(501, None, f"the stand-in does not know {what}")


def plain_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise unknown(f"the name {text!r}")
    return text


async def read_json(request: web.Request) -> Any:
    try:
        return json.loads(await request.text())
    except ValueError:
        raise Refusal(400, "PGRST102", "Empty or invalid json") from None


async def _columns(db: asyncpg.Connection, table: str) -> dict[str, str]:
    """The table's columns and their types, as PostgREST has them in its schema cache."""
    rows = await db.fetch(
        "select attname, format_type(atttypid, atttypmod) as type from pg_attribute"
        " where attrelid = to_regclass('public.' || $1) and attnum > 0 and not attisdropped",
        table,
    )
    if not rows:
        raise Refusal(404, "PGRST205", f"Could not find the table 'public.{table}' in the schema cache")
    return {row["attname"]: row["type"] for row in rows}


async def select(db: asyncpg.Connection, table: str, request: web.Request, max_rows: int) -> web.Response:
    if request.headers.get("Accept", "*/*") not in ("*/*", "application/json") or "Range" in request.headers:
        raise unknown("this way to ask for rows")
    columns = await _columns(db, table)
    wanted, order, limit, tests, values = "*", "", max_rows, [], []
    for parameter, value in request.query.items():
        if parameter == "select":
            wanted = ", ".join("*" if part == "*" else _column(columns, part) for part in value.split(","))
        elif parameter == "order":
            parts = [re.fullmatch(r"(\w+)(\.asc|\.desc)?", part) for part in value.split(",")]
            if not all(parts):
                raise unknown(f"the order {value!r}")
            order = "order by " + ", ".join(
                f"{_column(columns, part[1])} {(part[2] or '.asc')[1:]}" for part in parts if part
            )
        elif parameter == "limit":
            limit = min(int(value), max_rows)
        else:
            tests.append(_test(columns, parameter, value, values))
    where = f"where {' and '.join(tests)}" if tests else ""
    return _answer_with(
        await db.fetchval(
            f"select coalesce(json_agg(row), '[]')::text"
            f" from (select {wanted} from public.{table} {where} {order} limit {limit}) row",
            *values,
        )
    )


def _column(columns: dict[str, str], name: str) -> str:
    if name not in columns:
        if not _NAME.fullmatch(name):
            raise unknown(f"the column {name!r}")
        raise Refusal(400, "42703", f"column {name} does not exist")
    return f'"{name}"'


def _test(columns: dict[str, str], column: str, filter_: str, values: list[str]) -> str:
    found = re.fullmatch(r"(\w+)(?:\((\w+)\))?\.(.*)", filter_, re.DOTALL)
    if not found:
        raise unknown(f"the parameter {column!r}")
    operator, config, value = found.groups()
    values.append(value)
    place = f"${len(values)}::text"
    if operator in _COMPARISONS and not config:
        return f"{_column(columns, column)} {_COMPARISONS[operator]} ({place})::{columns[column]}"
    if operator in _FULL_TEXT:
        language = f"'{config}'," if config else ""
        return f"{_column(columns, column)} @@ {_FULL_TEXT[operator]}({language} {place})"
    raise unknown(f"the operator {operator!r}")


async def insert(db: asyncpg.Connection, table: str, body: Any, request: web.Request) -> web.Response:
    wishes = {part.strip() for part in request.headers.get("Prefer", "").split(",")} - {"", "return=minimal"}
    resolution = {"resolution=merge-duplicates": "update", "resolution=ignore-duplicates": "nothing"}
    if (strange := wishes - resolution.keys()) or (parameters := request.query.keys() - {"on_conflict", "columns"}):
        raise unknown(f"the wishes {strange or parameters}")
    columns = await _columns(db, table)
    rows = body if isinstance(body, list) else [body]
    given = list(dict.fromkeys(name for row in rows for name in row))
    for name in given:
        if name not in columns:
            raise Refusal(400, "PGRST204", f"Could not find the '{name}' column of '{table}' in the schema cache")
    names = ", ".join(f'"{name}"' for name in given)
    conflict = ""
    merges = "resolution=merge-duplicates" in wishes
    if wishes:
        key = [_column(columns, name) for name in request.query.get("on_conflict", "").split(",") if name]
        if not key:
            raise unknown("an upsert by the primary key")
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in given)
        action = {"update": f"do update set {changes}", "nothing": "do nothing"}[resolution[wishes.pop()]]
        conflict = f"on conflict ({', '.join(key)}) {action}"
    written = await db.fetch(
        f"insert into public.{table} ({names}) select {names}"
        f" from json_populate_recordset(null::public.{table}, $1::json) {conflict} returning xmax = 0 as is_new",
        json.dumps(rows),
    )
    return web.Response(status=200 if merges and not any(row["is_new"] for row in written) else 201)


async def call(
    db: asyncpg.Connection, function: str, arguments: Any, request: web.Request, max_rows: int
) -> web.Response:
    if request.query or not isinstance(arguments, dict):
        raise unknown("this way to call a function")
    known = await db.fetchrow(
        "select p.proretset, p.provolatile, array(select format_type(t, null) from unnest(p.proargtypes) t) as types,"
        " p.proargnames[:p.pronargs] as names, p.pronargdefaults as defaults"
        " from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = $1"
        " and p.prorettype <> 'trigger'::regtype",
        function,
    )
    names = known["names"] or [] if known else []
    required = names[: len(names) - known["defaults"]] if known else []
    if known is None or not set(required) <= arguments.keys() <= set(names):
        raise Refusal(404, "PGRST202", f"Could not find the function public.{function} in the schema cache")
    if known["provolatile"] != b"v":
        await db.execute("set transaction read only")
    types = dict(zip(names, known["types"], strict=True))
    passed = ", ".join(f"{plain_name(name)} => a.{plain_name(name)}" for name in arguments)
    record = ", ".join(f"{name} {types[name]}" for name in arguments)
    source = f"public.{function}({passed}) as result"
    if arguments:
        source = f"json_to_record($1::json) as a({record}), lateral {source}"
    one = "coalesce(json_agg(result), '[]')" if known["proretset"] else "to_json(result)"
    query = f"select ({one})::text from (select result from {source} limit {max_rows}) cut"
    return _answer_with(await db.fetchval(query, *([json.dumps(arguments)] if arguments else [])))


def _answer_with(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
