// The TypeScript client against a real server: HALLMARK_URL, HALLMARK_TOKEN. Any step that is not as it should be throws.
import { code, follow, hallmark, type components } from "./index.js";

const client = hallmark(process.env["HALLMARK_URL"]!, process.env["HALLMARK_TOKEN"]!);

function expect<T>(what: string, have: T, want: T): void {
  if (JSON.stringify(have) !== JSON.stringify(want)) throw new Error(`${what}: ${JSON.stringify(have)}, want ${JSON.stringify(want)}`);
  console.log(`${what}: ${JSON.stringify(have)}`);
}

async function* allDevices(): AsyncGenerator<components["schemas"]["FleetDevice"]> {
  for (let after: string | undefined; ; ) {
    const { data, error } = await client.GET("/api/v1/devices", { params: { query: { limit: 2, ...(after ? { after } : {}) } } });
    if (error) throw new Error(error.detail);
    yield* data.items;
    if (!(after = data.next)) return;
  }
}

const ids: string[] = [];
for await (const device of allDevices()) ids.push(device.id);
expect("devices, each once and in order", ids, [...new Set(ids)].sort());
expect("devices", ids.length, Number(process.env["HALLMARK_DEVICES"]));

const id = "ts-" + crypto.randomUUID().slice(0, 8);
const body: components["schemas"]["Product"] = {
  id, oem: "acme", name: "Made by TypeScript", hardware: ["A"], update_model: "blob", suite: "HM-P256-1",
  end_of_support: "2040-01-01T00:00:00Z", created: new Date().toISOString(),
};
const header = { "Idempotency-Key": crypto.randomUUID() };
const made = await client.POST("/api/v1/products", { body, params: { header } });
expect("create a product", made.data?.id, id);
const again = await client.POST("/api/v1/products", { body, params: { header } });
expect("create it again with the same key", again.response.headers.get("Idempotency-Replayed"), "true");
const refused = await client.POST("/api/v1/products", { body });
expect("create it again with another key", code(refused.error), "product.exists");
const shown = await client.GET("/api/v1/products/{id}", { params: { path: { id } } });
expect("show it", shown.data?.name, "Made by TypeScript");

const stop = new AbortController();
let told = 0, last = "";
for await (const event of follow(client, "control:0,events:0", stop.signal)) {
  last = event.id;
  if (++told === 3) break;
}
stop.abort();
expect("events told, and where one goes on", [told, last], [3, "control:3,events:0"]);
