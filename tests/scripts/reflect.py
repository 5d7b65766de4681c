"""A generic client: it knows an address and nothing else, and learns every type by reflection.

Lists the services, submits a task, streams it to its end, submits another and cancels it. Prints a line for each.
ARTEL_TOKEN is the token of the caller.
"""
import os
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Token(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the token to each call."""

    def add(self, proceed, details, request):
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {os.environ['ARTEL_TOKEN']}")]
        return proceed(details._replace(metadata=metadata), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = add


class Generic:
    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, service, method, request):
        found = self.pool.FindServiceByName(service).FindMethodByName(method)
        ask, answer = (message_factory.GetMessageClass(t) for t in (found.input_type, found.output_type))
        path, read = f"/{service}/{method}", answer.FromString
        message = json_format.ParseDict(request, ask())
        if found.server_streaming:
            stream = self.channel.unary_stream(path, ask.SerializeToString, read)(message)
            return (self.dict(item) for item in stream)
        return self.dict(self.channel.unary_unary(path, ask.SerializeToString, read)(message))

    @staticmethod
    def dict(message):
        return json_format.MessageToDict(message, preserving_proto_field_name=True)


def main(address, short, long):
    with grpc.intercept_channel(grpc.insecure_channel(address), Token()) as channel:
        client = Generic(channel)
        print("services", *sorted(client.database.get_services()))
        task = client.call("artel.v1.Tasks", "Submit", {"role": short, "input": "What is the capital of France?"})
        kinds, text = [], ""
        for event in client.call("artel.v1.Tasks", "Watch", {"task_id": task["id"], "tokens": True}):
            kinds.append(next(k for k in event if k not in ("task_id", "seq", "time")))
            text += event.get("token", {}).get("text", "")
        print("stream", *dict.fromkeys(kinds))
        print("text", text.strip())
        task = client.call("artel.v1.Tasks", "Submit", {"role": long, "input": "Tell a long story."})
        events = client.call("artel.v1.Tasks", "Watch", {"task_id": task["id"], "tokens": True})
        next(event for event in events if "token" in event)
        task = client.call("artel.v1.Tasks", "Cancel", {"task_id": task["id"], "reason": "enough"})
        last = list(events)[-1]
        print("cancelled", task["state"], task["cancel_reason"], "cancelled" in last)


if __name__ == "__main__":
    main(*sys.argv[1:])
