// Verifies that an entry is in the ledger, in the browser: the hash of its bytes, folded with the proof's path (RFC 6962), must
// give the root that the log's key and the witnesses' keys have signed. Nothing the server says is taken for it but its keys.

const out = document.getElementById("verify");
const bytes = (b64) => Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));
const b64 = (b) => btoa(String.fromCharCode(...b));
const hex = (b) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
const text = (s) => new TextEncoder().encode(s);
const hash = async (...parts) => {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) { all.set(p, at); at += p.length; }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
};

const shapes = {
  good: [["circle", { cx: 6, cy: 6, r: 5.5, class: "fill" }], ["path", { d: "M3.4 6.2l1.8 1.8 3.4-3.8", class: "cut" }]],
  bad: [["path", { d: "M3.6.4h4.8l3.2 3.2v4.8l-3.2 3.2H3.6L.4 8.4V3.6z", class: "fill" }], ["path", { d: "M3.9 3.9l4.2 4.2M8.1 3.9L3.9 8.1", class: "cut" }]],
  warn: [["path", { d: "M6 .6l5.7 10.6H.3z", class: "fill" }], ["path", { d: "M6 4.2v3.2M6 8.6v1.2", class: "cut" }]],
};

function step(tone, name, ...lines) {
  const li = document.createElement("li"), div = document.createElement("div"), b = document.createElement("b");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [k, v] of Object.entries({ class: "glyph " + tone, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" })) svg.setAttribute(k, v);
  for (const [tag, attrs] of shapes[tone]) {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    svg.append(e);
  }
  b.textContent = name + { good: "", bad: ": no", warn: "" }[tone];
  div.append(b);
  for (const l of lines) {
    const p = document.createElement("p");
    if (l.mono) p.className = "mono";
    p.textContent = l.mono || l;
    div.append(p);
  }
  li.className = tone;
  li.append(svg, div);
  out.append(li);
}

// A fact is a CBOR map with small integer keys; this reads what facts are made of, and refuses the rest.
function cbor(b) {
  let at = 0;
  const need = (n) => { if (at + n > b.length) throw new Error("the entry ends too early"); };
  const head = () => {
    need(1);
    const first = b[at++], major = first >> 5, info = first & 31;
    if (info < 24) return [major, info];
    if (info > 27) throw new Error("the entry is not in canonical form");
    const n = 1 << (info - 24);
    need(n);
    let v = 0;
    for (let i = 0; i < n; i++) v = v * 256 + b[at++];
    return [major, v];
  };
  const item = (depth) => {
    if (depth > 8) throw new Error("the entry is nested too deeply");
    const [major, n] = head();
    switch (major) {
      case 0: return n;
      case 1: return -1 - n;
      case 2: case 3: { need(n); const s = b.slice(at, at + n); at += n; return major === 2 ? s : new TextDecoder("utf-8", { fatal: true }).decode(s); }
      case 4: { const a = []; for (let i = 0; i < n; i++) a.push(item(depth + 1)); return a; }
      case 5: { const m = new Map(); for (let i = 0; i < n; i++) { const k = item(depth + 1); m.set(k, item(depth + 1)); } return m; }
    }
    throw new Error("the entry holds what a fact does not");
  };
  const v = item(0);
  if (at !== b.length) throw new Error("there is more behind the entry");
  return v;
}

// The root of a tree of size, from the leaf at index and the path (RFC 9162 §2.1.3.2).
async function fold(index, size, leaf, path) {
  if (!(index < size)) throw new Error("the entry lies behind the tree");
  let fn = BigInt(index), sn = BigInt(size) - 1n, r = leaf;
  for (const p of path) {
    if (sn === 0n) throw new Error("the path is too long");
    if ((fn & 1n) === 1n || fn === sn) {
      r = await hash(Uint8Array.of(1), p, r);
      while ((fn & 1n) === 0n && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else r = await hash(Uint8Array.of(1), r, p);
    fn >>= 1n; sn >>= 1n;
  }
  if (sn !== 0n) throw new Error("the path is too short");
  return r;
}

async function signed(key, signature, message) {
  const k = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, k, signature, text(message));
}

async function verify() {
  const d = out.dataset, index = Number(d.index);
  const answer = await fetch(`/api/v1/log/${d.log}/entries/${d.index}`, { credentials: "same-origin" });
  if (answer.status === 503) { out.replaceChildren(); step("warn", "Not yet", "The entry is durable, and not under a witnessed checkpoint yet. Look again in a moment."); return; }
  if (!answer.ok) throw new Error("the server gave no proof: " + answer.status);
  const got = await answer.json(), proof = got.proof, entry = bytes(got.entry);
  out.replaceChildren();
  if (proof.index !== index) throw new Error("the proof is for entry " + proof.index);

  const fact = cbor(entry);
  step("good", "Read the entry's " + entry.length + " bytes", `They say: ${fact.get(3)}, about ${fact.get(6)}, by ${fact.get(5)}, at ${new Date(fact.get(4)).toISOString()}`);
  const leaf = await hash(Uint8Array.of(0), entry);
  step("good", "Hashed them: SHA-256 of 0x00 and the bytes", { mono: hex(leaf) });
  const path = (proof.path || []).map(bytes), root = await fold(proof.index, proof.size, leaf, path);
  step("good", `Folded the hash with the ${path.length} hashes of the proof's path`, `That is the root of the tree of ${proof.size} entries, with this one at ${proof.index}:`, { mono: hex(root) });

  const body = `${d.origin}\n${proof.size}\n${b64(root)}\n`;
  const published = await fetch(`/log/${d.log}/checkpoint`, { cache: "no-store" }).then((r) => (r.ok ? r.text() : ""));
  const [origin, size, shown] = published.split("\n");
  if (origin !== d.origin) step("bad", "The published checkpoint is this log's", `It is of ${origin || "nothing"}`);
  else if (size === String(proof.size)) step(shown === b64(root) ? "good" : "bad", "The published checkpoint has this root", `Checkpoint of ${origin}, size ${size}`);
  else if (Number(size) > proof.size) step("good", "The published checkpoint is newer", `It has ${size} entries; the proof is under the one of ${proof.size}, whose signatures follow.`);
  else step("bad", "The published checkpoint is as new as the proof", `It has ${size} entries only`);

  let ok;
  try {
    ok = await signed(bytes(d.key), bytes(proof.log_signature), body);
  } catch {
    step("warn", "Signatures not checked", "This browser has no Ed25519. The root above is right if the signatures over it are: hallmark log verify checks them.");
    return;
  }
  step(ok ? "good" : "bad", "The log's key signed this root", { mono: "key " + hex(bytes(d.key)) });
  const keys = JSON.parse(d.witnesses), quorum = Number(d.quorum);
  const witnesses = new Set(); // by key: one that signs twice, or under two names, is one witness
  for (const c of proof.cosignatures || []) {
    if (!keys[c.witness]) continue;
    const w = await signed(bytes(keys[c.witness]), bytes(c.signature), `cosignature/v1\ntime ${c.time}\n${body}`);
    if (w) witnesses.add(keys[c.witness]);
    step(w ? "good" : "bad", `Witness ${c.witness} cosigned it`, "on " + new Date(c.time * 1000).toLocaleString(), { mono: "key " + hex(bytes(keys[c.witness])) });
  }
  const proven = ok && witnesses.size >= quorum && !out.querySelector("li.bad");
  step(proven ? "good" : "bad", proven ? "Proven: this entry is in the ledger" : "It is proven", `${witnesses.size} of ${quorum} witnesses needed. Computed here, by your browser.`);
}

if (out) verify().catch((e) => { step("bad", "It is proven", e.message); });
