// A gRPC-Web client over TLS, in Node.js, which trusts the authority of NODE_EXTRA_CA_CERTS. Prints what it saw as JSON.
//
// node grpc_web.mjs URL ORIGIN   ORIGIN is one that the daemon lists. The tokens stand in the environment, as for grpcio_client.py.
import { refusal, runTask, submission, tasks } from "./calls.mjs";

const [url, origin] = process.argv.slice(2);
const { ARTEL_TOKEN: token, READER_TOKEN: reader, BUSY_TOKEN: busy } = process.env;

// The first of many calls that is refused.
async function untilRefused(client) {
  for (;;) {
    const refused = await refusal(() => client.list({}));
    if (refused.code !== "OK") return refused;
  }
}

async function drain(stream) {
  for await (const _ of stream);
}

// What the browser of a page asks before the page's first call.
async function preflight(origin) {
  const headers = {
    origin,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent",
  };
  const answer = await fetch(`${url}/artel.v1.Tasks/Submit`, { method: "OPTIONS", headers });
  const header = (name) => answer.headers.get(`access-control-allow-${name}`);
  return { status: answer.status, origin: header("origin"), methods: header("methods"), headers: header("headers") };
}

const client = tasks(url, token);
const asked = await client.submit({ target: { case: "graph", value: "question" }, input: "Which?" });
const seen = {
  run: await runTask(client, "over gRPC-Web"),
  no_token: await refusal(() => tasks(url).list({})),
  wrong_token: await refusal(() => tasks(url, "artel_wrong").list({})),
  missing_scope: await refusal(() => tasks(url, reader).submit(submission("not for a reader"))),
  deadline: await refusal(() => drain(client.watch({ taskId: asked.id }, { timeoutMs: 300 }))),
  limit: await untilRefused(tasks(url, busy)),
  preflight: await preflight(origin),
  foreign_preflight: await preflight("https://other.example"),
};
await client.cancel({ taskId: asked.id });
console.log(JSON.stringify(seen));
