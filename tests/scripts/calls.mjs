// The calls of a gRPC-Web client, in Node.js and in a browser. Beside this file lie the modules of the protos, as
// `protoc-gen-es` makes them.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { TaskState, Tasks } from "./artel/v1/tasks_pb.js";
import { ErrorInfoSchema, RetryInfoSchema } from "./google/rpc/error_details_pb.js";

// A client of `Tasks`, whose calls have this token, or none.
export function tasks(baseUrl, token) {
  const authorized = (next) => (request) => {
    if (token) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  return createClient(Tasks, createGrpcWebTransport({ baseUrl, interceptors: [authorized] }));
}

export const submission = (input) => ({ target: { case: "role", value: "writer" }, input });

// Submits a task, watches it to its end, and asks for it once more.
export async function runTask(client, input) {
  const { id } = await client.submit(submission(input));
  const kinds = [];
  for await (const event of client.watch({ taskId: id })) kinds.push(event.kind.case);
  const task = await client.get({ taskId: id });
  const { tasks: listed } = await client.list({});
  return {
    kinds: [...new Set(kinds)],
    state: `TASK_STATE_${TaskState[task.state]}`,
    text: task.result.text,
    listed: listed.some((other) => other.id === id),
  };
}

// How a call is refused: the code, the reason of its `ErrorInfo` with the metadata, and the delay of its `RetryInfo`.
export async function refusal(call) {
  try {
    await call();
    return { code: "OK" };
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [retry] = error.findDetails(RetryInfoSchema);
    return {
      code: Code[error.code].replace(/(?<=.)([A-Z])/g, "_$1").toUpperCase(),
      ...(info && { reason: info.reason, metadata: info.metadata }),
      ...(retry && { retry_seconds: Number(retry.retryDelay.seconds) + retry.retryDelay.nanos / 1e9 }),
    };
  }
}
