"""A client made from the protos alone: pip install grpcio-tools, then
python -m grpc_tools.protoc -Iproto/proto --python_out=. --grpc_python_out=. proto/proto/artel/v1/*.proto
export ARTEL_TOKEN=$(cat ~/.local/share/artel/token)  # the owner's; `artel token create` makes others
python artel_client.py 127.0.0.1:7430 gguf "What is a GGUF file?"
Ctrl-C cancels the task."""
import os
import sys

import grpc
from artel.v1 import tasks_pb2, tasks_pb2_grpc


def main(address, role, question):
    caller = {"metadata": [("authorization", f"Bearer {os.environ['ARTEL_TOKEN']}")]}
    with grpc.insecure_channel(address) as channel:
        tasks = tasks_pb2_grpc.TasksStub(channel)
        task = tasks.Submit(tasks_pb2.SubmitRequest(role=role, input=question), **caller)  # on disk from here on
        print("task", task.id, flush=True)
        try:
            for event in tasks.Watch(tasks_pb2.WatchRequest(task_id=task.id, tokens=True), **caller):
                if event.WhichOneof("kind") == "token":
                    print(event.token.text, end="", flush=True)
        except KeyboardInterrupt:
            tasks.Cancel(tasks_pb2.CancelRequest(task_id=task.id, reason="Ctrl-C"), **caller)
        task = tasks.Get(tasks_pb2.GetTaskRequest(task_id=task.id), **caller)
        print("\nstate", tasks_pb2.TaskState.Name(task.state))
        return 0 if task.state == tasks_pb2.TASK_STATE_COMPLETED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
