"""Every asynchronous test here runs on both loops: they differ in how they close, cancel and speak TLS."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories():
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
