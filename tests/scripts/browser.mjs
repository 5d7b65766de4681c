// Pages in Chromium that try to reach a daemon: one of a listed origin, two of other origins, and one whose name is made to
// resolve to the daemon after the page was loaded (DNS rebinding). Prints what they saw as JSON.
//
// node browser.mjs CHROMIUM DAEMON-PORT   ARTEL_TOKEN is the token that the pages know. The listed origin is http://desk.example.
import { readFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { chromium } from "playwright-core";

const [program, daemonPort] = process.argv.slice(2);
const daemon = `http://127.0.0.1:${daemonPort}`;
const token = process.env.ARTEL_TOKEN;

const modules = (name, ...parts) =>
  ["", ...parts].map((part) => [`${name}${part}`, `/node_modules/${name}/dist/esm${part}/index.js`]);
const imports = Object.fromEntries([
  ...modules("@bufbuild/protobuf", "/codegenv2", "/wire", "/wkt"),
  ...modules("@connectrpc/connect", "/protocol", "/protocol-connect", "/protocol-grpc-web"),
  ...modules("@connectrpc/connect-web"),
]);
const page = `<!doctype html><title>page</title><script type="importmap">${JSON.stringify({ imports })}</script>
<script type="module">import * as calls from "/calls.mjs"; window.calls = calls;</script>`;

function listen(server) {
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
}

// The server of the pages: the page, and below it the modules in this directory.
const pages = createHttpServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const isPage = pathname === "/";
  const content = isPage ? page : await readFile(new URL(`.${pathname}`, import.meta.url)).catch(() => null);
  response.writeHead(content === null ? 404 : 200, { "content-type": isPage ? "text/html" : "text/javascript" });
  response.end(content);
});
const pagesPort = await listen(pages);

// Where the name of the attacker leads: to the attacker's pages, and from some moment on to the daemon.
let rebindingPort = pagesPort;
const sockets = new Set();
const rebinding = createServer((socket) => {
  const target = connect(rebindingPort, "127.0.0.1");
  for (const [end, other] of [[socket, target], [target, socket]]) {
    sockets.add(end);
    end.on("error", () => other.destroy()).on("close", () => sockets.delete(end));
    end.pipe(other);
  }
});
const rebindingServerPort = await listen(rebinding);
function rebind() {
  rebindingPort = daemonPort;
  for (const socket of sockets) socket.destroy();
}

// Every way in which a page may reach a server, and what the page sees of the answer: null if nothing. It runs in the page.
async function attempts({ target, token }) {
  const { tasks, submission } = window.calls;
  const grpc = `${target}/artel.v1.Tasks/Submit`;
  const authorized = { headers: { authorization: `Bearer ${token}` } };
  // A request for the role `writer`, as a frame of gRPC-Web.
  const message = new TextEncoder().encode("\x12\x06writer\x1a\x06attack");
  const frame = new Uint8Array([0, 0, 0, 0, message.length, ...message]);
  const fetched = async (url, options) => {
    const answer = await fetch(url, options).catch(() => null);
    const text = (await answer?.text()) || answer?.headers.get("grpc-message");
    return answer?.status || text ? `${answer.status} ${text}` : null;
  };
  const called = (token) => tasks(target, token).submit(submission("attack")).then(({ id }) => id).catch(() => null);
  // An element that loads something, and what of it can be seen.
  const loaded = (tag, properties, see) => new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.onload = () => resolve(see(element));
    element.onerror = () => resolve(null);
    document.body.append(element);
  });
  const framed = (frame) => {
    try {
      return frame.contentDocument?.body.textContent ?? null;
    } catch {
      return null;
    }
  };
  const opened = (socket) => new Promise((resolve) => {
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve(null);
  });
  const posted = () => {
    const frame = Object.assign(document.createElement("iframe"), { name: "posted" });
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: grpc, enctype: "text/plain", target: frame.name });
    document.body.append(frame, form);
    return new Promise((resolve) => {
      frame.onload = () => resolve(framed(frame));
      form.submit();
    });
  };
  const simple = { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" }, body: frame };
  const web = { method: "POST", headers: { "content-type": "application/grpc-web+proto" }, body: frame };
  const ways = {
    health: () => fetched(`${target}/healthz`),
    readiness: () => fetched(`${target}/readyz`),
    metrics: () => fetched(`${target}/metrics`),
    metrics_with_the_token: () => fetched(`${target}/metrics`, authorized),
    health_without_cors: () => fetched(`${target}/healthz`, { mode: "no-cors" }),
    metrics_without_cors: () => fetched(`${target}/metrics`, { mode: "no-cors" }),
    a_grpc_web_call: () => called(null),
    a_grpc_web_call_with_the_token: () => called(token),
    a_raw_grpc_web_call: () => fetched(grpc, web),
    a_simple_post: () => fetched(grpc, simple),
    a_raw_grpc_web_call_without_cors: () => fetched(grpc, { ...web, mode: "no-cors" }),
    a_form: posted,
    a_web_socket: () => opened(new WebSocket(grpc.replace("http", "ws"))),
    an_event_source: () => opened(new EventSource(`${target}/metrics`)),
    an_image: () => loaded("img", { src: `${target}/healthz` }, () => "loaded"),
    a_script: () => loaded("script", { src: `${target}/healthz` }, () => "loaded"),
    a_frame: () => loaded("iframe", { src: `${target}/healthz` }, framed),
  };
  const seen = {};
  for (const [way, attempt] of Object.entries(ways)) seen[way] = await attempt();
  return seen;
}

// What the listed page sees. It runs in the page.
async function permitted({ target, token }) {
  const { refusal, runTask, submission, tasks } = window.calls;
  const metrics = await fetch(`${target}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  return {
    run: await runTask(tasks(target, token), "from the listed page"),
    no_token: await refusal(() => tasks(target).submit(submission("without a token"))),
    health: await (await fetch(`${target}/healthz`)).text(),
    metrics: metrics.status,
  };
}

const hosts = [
  `MAP desk.example 127.0.0.1:${pagesPort}`,
  `MAP other.example 127.0.0.1:${pagesPort}`,
  `MAP evil.example 127.0.0.1:${rebindingServerPort}`,
  "MAP * ~NOTFOUND",
  "EXCLUDE 127.0.0.1",
];
// What starts this script limits the time.
const browser = await chromium.launch({
  executablePath: program,
  timeout: 0,
  args: [
    ...["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-proxy-server"],
    `--host-resolver-rules=${hosts.join(", ")}`,
  ],
});
async function inPage(url, act, target = daemon) {
  const tab = await browser.newPage();
  tab.setDefaultTimeout(0);
  await tab.goto(url);
  if (target !== daemon) rebind();
  const seen = await tab.evaluate(act, { target, token });
  await tab.close();
  return seen;
}
const seen = {
  another_site: await inPage("http://other.example/", attempts),
  another_port: await inPage(`http://127.0.0.1:${pagesPort}/`, attempts),
  rebound: await inPage("http://evil.example/", attempts, "http://evil.example"),
  listed: await inPage("http://desk.example/", permitted),
};
await browser.close();
console.log(JSON.stringify(seen));
process.exit(0);
