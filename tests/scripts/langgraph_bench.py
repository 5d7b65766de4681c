"""The graph of the bench `graph` in LangGraph, with its SQLite checkpointer: a task is an invocation of its own thread.

python langgraph_bench.py TASKS ANSWER DATABASE    prints one JSON object: tasks and steps per second, milliseconds of CPU
and bytes of the database per task, the largest resident size in kB.
"""

import json
import os
import resource
import sqlite3
import sys
import time
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

NODES = ["a", "b", "c", "d"]


class State(TypedDict, total=False):
    """The input and the text of each node, which Artel keeps for a task too."""

    input: str
    a_text: str
    b_text: str
    c_text: str
    d_text: str


def build(saver, answer):
    graph = StateGraph(State)
    for node in NODES:
        graph.add_node(node, lambda state, key=f"{node}_text": {key: answer})
    for one, next_ in zip([START, *NODES], [*NODES, END]):
        graph.add_edge(one, next_)
    return graph.compile(checkpointer=saver)


def main():
    tasks, answer, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    connection = sqlite3.connect(path, check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute("PRAGMA synchronous = FULL")
    graph = build(saver, answer)
    start, cpu_start = time.perf_counter(), time.process_time()
    for n in range(tasks):
        config = {"configurable": {"thread_id": f"task-{n}"}}
        state = graph.invoke({"input": "What is to be done?"}, config, durability="sync")
        assert state["d_text"] == answer
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    print(json.dumps({
        "tasks_per_second": tasks / elapsed,
        "steps_per_second": tasks * len(NODES) / elapsed,
        "cpu_ms": cpu * 1000 / tasks,
        "bytes_per_task": os.path.getsize(path) / tasks,
        "resident_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }))


main()
