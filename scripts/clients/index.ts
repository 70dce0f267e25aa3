// Hallmark's API from TypeScript: the types are generated (schema.ts), the calls are openapi-fetch's.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type { components, paths };
export type Problem = components["schemas"]["Problem"];

// hallmark makes a client of the instance at base, http(s)://host:port, with an access token, hmk_…. What changes something carries an
// Idempotency-Key, yours or a new one.
export function hallmark(base: string, token: string): Client<paths> {
  const client = createClient<paths>({ baseUrl: base });
  client.use({
    onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${token}`);
      if (request.method !== "GET" && !request.headers.has("Idempotency-Key")) {
        request.headers.set("Idempotency-Key", crypto.randomUUID());
      }
      return request;
    },
  });
  return client;
}

// code gives the stable code of a problem, "product.exists"; undefined when it is one of plain HTTP.
export function code(problem: Problem | undefined): string | undefined {
  const prefix = "urn:hallmark:fault:";
  return problem?.type?.startsWith(prefix) ? problem.type.slice(prefix.length) : undefined;
}

export interface Event {
  id: string; // give it as last to go on behind it
  missed: boolean; // no fact: more happened since than is told at once; read again what you show
  fact?: { log: string; index: number; kind: string; subject: string; at: string };
}

// follow tells events as they happen; last is the ID of the last one you know. It ends when the connection does: wait a little, and
// follow again from the last ID.
export async function* follow(client: Client<paths>, last?: string, signal?: AbortSignal): AsyncGenerator<Event> {
  const { data, error } = await client.GET("/api/v1/events", {
    params: { header: last ? { "Last-Event-ID": last } : {} },
    parseAs: "stream",
    ...(signal ? { signal } : {}),
  });
  if (error || !data) throw Object.assign(new Error(error?.detail ?? "no stream"), { problem: error });
  let rest = "";
  const text = new TextDecoder();
  for await (const chunk of data as unknown as AsyncIterable<Uint8Array>) {
    const blocks = (rest + text.decode(chunk, { stream: true })).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const field = (name: string) => block.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
      const kind = field("event");
      if (kind === "fact") yield { id: field("id") ?? "", missed: false, fact: JSON.parse(field("data") ?? "null") };
      if (kind === "reset") yield { id: field("id") ?? "", missed: true };
    }
  }
}
