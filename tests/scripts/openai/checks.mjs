// Checks of a client against a daemon, as in `checks.py`: the same environment, the same lines, the same exit status.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

export const BASE_URL = process.env.BASE_URL;
export const API_KEY = process.env.API_KEY;
export const LIMITED_API_KEY = process.env.LIMITED_API_KEY;

// What the scripted role `agent` calls, the result that it expects, and its answer.
export const AGENT_QUESTION = "How is the weather in Oslo?";
export const AGENT_ARGUMENTS = { city: "Oslo" };
export const AGENT_RESULT = "sunny, 18 degrees";
export const AGENT_ANSWER = "It is sunny in Oslo, at 18 degrees.";

// The arguments of a tool that a model of any size can give, as it is held to them.
export const WEATHER_SCHEMA = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Lima"] } },
  required: ["city"],
  additionalProperties: false,
};

const run = promisify(execFile);
const checks = [];

// Adds a check.
export function check(name, body) {
  checks.push({ name, body });
}

// The state of a task, once it has ended.
export async function stateAtEnd(task) {
  const program = process.env.ARTEL_PROGRAM;
  // Its exit status says how the task ended.
  await run(program, ["task", "watch", "--no-tokens", task]).catch(() => {});
  const { stdout } = await run(program, ["--json", "task", "get", task]);
  return JSON.parse(stdout).state;
}

// Runs the checks that the arguments name, or all, and ends the process.
export async function main() {
  const wanted = process.argv.slice(2);
  const unknown = wanted.filter((name) => !checks.some((check) => check.name === name));
  if (unknown.length) throw new Error(`no such check: ${unknown.join(", ")}`);
  let failed = 0;
  for (const { name, body } of checks) {
    if (wanted.length && !wanted.includes(name)) continue;
    try {
      await body();
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      const place = error?.stack?.match(/([a-z_]+\.mjs:\d+):\d+/g)?.find((line) => !line.startsWith("checks.mjs"));
      console.log(`FAIL ${name}: ${String(error).replace(/\s+/g, " ")} (${place ?? "no place"})`);
    }
  }
  process.exit(failed ? 1 : 0);
}
