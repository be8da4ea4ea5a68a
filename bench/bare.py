"""The floor: a bare Flask view that does the same two database commits and the same two broker calls."""

from __future__ import annotations

import os

import requests
from flask import Flask, jsonify, request
from sqlalchemy import create_engine, event, text

app = Flask(__name__)
URL = os.environ["BARE_DATABASE_URL"]
IS_SQLITE = URL.startswith("sqlite")
engine = create_engine(URL, connect_args={"timeout": 30} if IS_SQLITE else {}, pool_size=16)
session = requests.Session()
HEADERS = {"Authorization": "X-200:t"}


@event.listens_for(engine, "connect")
def _durable(connection, _record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if IS_SQLITE:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")


with engine.begin() as _first:
    kind = "INTEGER" if IS_SQLITE else "BIGINT GENERATED ALWAYS AS IDENTITY"
    _first.execute(text(f"CREATE TABLE IF NOT EXISTS o (id {kind} PRIMARY KEY, body TEXT, state TEXT)"))


@app.post("/webhook")
def webhook():  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Quote, commit, order, commit."""
    alert = request.get_json()
    quotes = os.environ["FYERS_DATA_URL"] + "/quotes"
    session.get(quotes, params={"symbols": alert["ticker"]}, headers=HEADERS, timeout=2).json()
    with engine.begin() as db:
        added = text("INSERT INTO o (body, state) VALUES (:b, 'SENDING') RETURNING id")
        row = db.execute(added, {"b": str(alert)}).scalar_one()
    order = {
        "symbol": alert["ticker"],
        "qty": 65,
        "type": 2,
        "side": 1,
        "productType": "INTRADAY",
        "limitPrice": 0,
        "stopPrice": 0,
        "disclosedQty": 0,
        "validity": "DAY",
        "offlineOrder": False,
        "orderTag": "BARE" + str(row),
    }
    orders = os.environ["FYERS_API_URL"] + "/orders/sync"
    answer = session.post(orders, json=order, headers=HEADERS, timeout=2).json()
    with engine.begin() as db:
        db.execute(text("UPDATE o SET state = 'ACCEPTED' WHERE id = :i"), {"i": row})
    return jsonify(answer)
