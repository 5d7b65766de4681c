"""grpcio over TLS. Prints what it saw as JSON.

python grpcio_client.py ADDRESS CA.pem CLIENT.pem CLIENT-KEY.pem

The modules of the protos are found by PYTHONPATH. ARTEL_TOKEN submits and reads, READER_TOKEN only reads, and BUSY_TOKEN may call
a few times a minute. The certificate of the client stands for a token of its name, which reads.
"""
import json
import os
import sys

import grpc
from artel.v1 import tasks_pb2, tasks_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Client:
    """A client of `Tasks`, whose calls have this token, or none."""

    def __init__(self, channel, token=None):
        self.stub = tasks_pb2_grpc.TasksStub(channel)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def __getattr__(self, method):
        return lambda request, **options: getattr(self.stub, method)(request, metadata=self.metadata, **options)


def submission(text):
    return tasks_pb2.SubmitRequest(role="writer", input=text)


def run(client, text):
    """Submits a task, watches it to its end, and asks for it once more."""
    task = client.Submit(submission(text))
    kinds = [event.WhichOneof("kind") for event in client.Watch(tasks_pb2.WatchRequest(task_id=task.id))]
    task = client.Get(tasks_pb2.GetTaskRequest(task_id=task.id))
    listed = client.List(tasks_pb2.ListTasksRequest()).tasks
    return {
        "kinds": list(dict.fromkeys(kinds)),
        "state": tasks_pb2.TaskState.Name(task.state),
        "text": task.result.text,
        "listed": any(other.id == task.id for other in listed),
    }


def refusal(call):
    """How a call is refused: the code, the reason of its `ErrorInfo` with the metadata, and the delay of its `RetryInfo`."""
    try:
        call()
    except grpc.RpcError as error:
        seen = {"code": error.code().name}
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                seen |= {"reason": info.reason, "metadata": dict(info.metadata)}
            if detail.Unpack(retry):
                seen["retry_seconds"] = retry.retry_delay.ToNanoseconds() / 1e9
        return seen
    return {"code": "OK"}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main(address, authority, certificate, key):
    every = tasks_pb2.ListTasksRequest()
    trusting = grpc.ssl_channel_credentials(read(authority))
    token, reader, busy = (os.environ[f"{name}_TOKEN"] for name in ("ARTEL", "READER", "BUSY"))
    with grpc.secure_channel(address, trusting) as channel:
        client = Client(channel, token)
        asked = client.Submit(tasks_pb2.SubmitRequest(graph="question", input="Which?"))
        watch = tasks_pb2.WatchRequest(task_id=asked.id)
        limited = (refusal(lambda: Client(channel, busy).List(every)) for _ in iter(int, 1))
        seen = {
            "run": run(client, "over gRPC"),
            "no_token": refusal(lambda: Client(channel).List(every)),
            "wrong_token": refusal(lambda: Client(channel, "artel_wrong").List(every)),
            "missing_scope": refusal(lambda: Client(channel, reader).Submit(submission("not for a reader"))),
            "deadline": refusal(lambda: list(client.Watch(watch, timeout=0.3))),
            "limit": next(refused for refused in limited if refused["code"] != "OK"),
        }
        client.Cancel(tasks_pb2.CancelRequest(task_id=asked.id))
    with grpc.secure_channel(address, grpc.ssl_channel_credentials()) as channel:
        seen["untrusted"] = refusal(lambda: Client(channel, token).List(every))
    shown = grpc.ssl_channel_credentials(read(authority), read(key), read(certificate))
    with grpc.secure_channel(address, shown) as channel:
        seen["certificate"] = refusal(lambda: Client(channel).List(every))
        seen["certificate_submits"] = refusal(lambda: Client(channel).Submit(submission("not for a reader")))
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
