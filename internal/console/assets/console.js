// What the pages do beyond being read: times in the viewer's zone, calls of the API after a confirmation, and a fresh main part
// when a fact says that something has changed. Without it every page reads the same.
"use strict";

const policy = window.trustedTypes?.createPolicy("hallmark", { createHTML: (s) => s }); // only for pages of this origin, parsed and inert
const say = (text) => { document.getElementById("say").textContent = text; };

function enhance(root) {
  for (const t of root.querySelectorAll("time[datetime]")) {
    const d = new Date(t.getAttribute("datetime"));
    if (Number.isNaN(d.getTime()) || t.title) continue;
    t.title = t.textContent.trim();
    const near = Math.abs(Date.now() - d.getTime()) < 86400000 * 300;
    t.textContent = d.toLocaleString(undefined, near
      ? { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" }
      : { year: "numeric", month: "short", day: "numeric" });
  }
  for (const b of root.querySelectorAll("button.act")) b.disabled = false;
}

// Actions: a button's data says what to ask for; the dialog asks the person.

const dialog = document.getElementById("confirm");
const part = (name) => document.getElementById("confirm-" + name);
let pending = null;

function ask(button) {
  const d = button.dataset, form = dialog.querySelector("form");
  pending = { method: d.method || "POST", path: d.path, body: d.body, fields: d.fields ? JSON.parse(d.fields) : [], reveal: d.reveal ? JSON.parse(d.reveal) : [], field: d.field, typed: d.typed, label: button.textContent, key: crypto.randomUUID(), from: button, propose: false,
    back: place(document.getElementById("main"), button) };
  form.reset();
  revealing(form, false);
  part("title").textContent = d.title;
  part("text").textContent = d.explain;
  part("problem").textContent = "";
  part("stepup").hidden = true;
  asking(form, d.field ? "Reason, for the ledger" : "");
  part("fields").replaceChildren(...pending.fields.map(input));
  part("typed").hidden = !d.typed;
  form.typed.required = Boolean(d.typed);
  part("typed").querySelector("span").textContent = d.typed ? "Type " + d.typed + " to go on" : "";
  const go = form.querySelector(".do");
  go.textContent = pending.label;
  go.className = button.classList.contains("bad") ? "do bad" : "do";
  go.disabled = false;
  dialog.showModal();
  (part("fields").querySelector("input, select, textarea") || (d.field ? form.reason : d.typed ? form.typed : go)).focus();
}

// files are the kinds of fields that take a file.
const files = new Set(["file", "bytes", "text-of", "begin", "upload"]);

// input makes what a field is filled in with. Its text is set as text: it never becomes markup.
function input(f) {
  const make = (tag, set) => Object.assign(document.createElement(tag), set);
  if (f.kind === "many") {
    const box = make("fieldset"), chosen = new Set((f.value || "").split(" "));
    box.append(make("legend", { textContent: f.label }), ...f.options.map((o) => {
      const label = make("label", { className: "check" });
      label.append(make("input", { type: "checkbox", name: "field-" + f.name, value: o.value, checked: chosen.has(o.value) }), make("span", { textContent: o.text }));
      return label;
    }));
    return box;
  }
  const tag = { one: "select", count: "select", json: "select", long: "textarea", pairs: "textarea", lines: "textarea", pem: "textarea" }[f.kind] || (f.kind === "setting" && f.options ? "select" : "input");
  const control = make(tag, { name: "field-" + f.name, required: !f.optional });
  if (tag === "select") control.append(...f.options.map((o) => make("option", { value: o.value, textContent: o.text, selected: o.value === f.value })));
  else if (!files.has(f.kind)) control.value = f.value || "";
  if (tag === "input") { control.type = files.has(f.kind) ? "file" : { date: "date", number: "number", decimal: "number", secret: "password" }[f.kind] || "text"; control.autocomplete = f.kind === "secret" ? "new-password" : "off"; control.spellcheck = false; }
  if (f.kind === "decimal") control.step = "any";
  if (f.kind === "hex") control.pattern = "\\s*([0-9a-fA-F]{2}\\s*)+";
  if (f.kind === "long" || f.kind === "pem") control.rows = 5;
  const label = make("label");
  label.append(make("span", { textContent: f.label }), control);
  return label;
}

// member puts a value into a document, at a name with dots between.
function member(out, name, value) {
  const path = name.split("."), last = path.pop();
  path.reduce((in_, part) => in_[part] ??= {}, out)[last] = value;
}

// begun is how much of a file is sent of which only the beginning counts: more than the head of any master.
const begun = 330000;

// filled gives what the person has filled in, as members of the body.
async function filled(form, out = {}) {
  for (const f of pending.fields) {
    const name = "field-" + f.name;
    if (f.kind === "many") { out[f.name] = [...form.querySelectorAll(`input[name="${CSS.escape(name)}"]:checked`)].map((i) => i.value); continue; }
    if (f.kind === "upload") continue;
    if (files.has(f.kind)) { // one file: as a list of one, as itself, how it begins, or as the text that it is
      let file = form.elements[name].files[0];
      if (!file) continue;
      if (f.kind === "begin") file = file.slice(0, begun);
      const content = f.kind === "text-of" ? await file.text() : base64(new Uint8Array(await file.arrayBuffer()));
      out[f.name] = f.kind === "file" ? [content] : content;
      continue;
    }
    const value = form.elements[name].value.trim();
    if (f.kind === "pairs") out[f.name] = value.split("\n").map((l) => l.trim()).filter(Boolean).map((l) => ({ name: l.split("=")[0].trim(), value: l.slice(l.indexOf("=") + 1).trim() }));
    else if (f.kind === "setting" || f.kind === "secret") { if (value !== "") (out.config ||= []).push({ name: f.name, value }); }
    else if (f.kind === "list") member(out, f.name, value.split(/[\s,]+/).filter(Boolean));
    else if (f.kind === "lines") member(out, f.name, value.split("\n").map((l) => l.trim()).filter(Boolean));
    else if (f.kind === "pem") member(out, f.name, [...value.matchAll(/-----BEGIN PUBLIC KEY-----([^-]*)-----END PUBLIC KEY-----/g)].map((m) => m[1].replace(/\s/g, "")));
    else if (value === "" && f.optional) continue;
    else if (f.kind === "number" || f.kind === "decimal" || f.kind === "count") member(out, f.name, Number(value));
    else if (f.kind === "json") out[f.name] = JSON.parse(value);
    else if (f.kind === "date") out[f.name] = value + "T00:00:00Z";
    else if (f.kind === "hex") out[f.name] = base64(value.match(/[0-9a-fA-F]{2}/g).map((h) => parseInt(h, 16)));
    else member(out, f.name, value);
  }
  return out;
}

// bytesOf is what base64 says.
function bytesOf(text) {
  const binary = atob(text), out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

const base64 = (bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));

// uploaded makes of a file the whole body of the request, and of what else was filled in its query.
async function uploaded(form, init) {
  const values = await filled(form), query = new URLSearchParams();
  for (const f of pending.fields) {
    if (f.kind === "upload") init.body = form.elements["field-" + f.name].files[0];
    else if (values[f.name] !== undefined) query.set(f.name, values[f.name]);
  }
  init.headers["Content-Type"] = "application/octet-stream";
  return pending.path + "?" + query;
}

// revealing shows an answer in the place of the question, or the question again.
function revealing(form, on) {
  for (const name of ["fields", "reason", "typed"]) if (on) part(name).hidden = true; else if (name === "fields") part(name).hidden = false;
  part("answer").hidden = !on;
  form.querySelector(".do").hidden = on;
  form.querySelector(".plain").textContent = on ? "Close" : "Cancel";
}

// found gives what is at a place of an answer: names, and * for each of a list, with dots between.
function found(answer, at) {
  return at.split(".").reduce((all, name) => all.flatMap((v) => (v == null ? [] : name === "*" ? Object.values(v) : [v[name]])), [answer]).filter((v) => v != null && v !== "");
}

// reveal shows what an answer brought that is nowhere else, a secret mostly; false: it brought nothing of that.
function reveal(form, answer) {
  const rows = pending.reveal.flatMap((r) => found(answer, r.at).map((v) => ({ label: r.label, file: r.file, value: typeof v === "object" ? JSON.stringify(v) : String(v) })));
  if (rows.length === 0) return false;
  part("answer").replaceChildren(...rows.map((row) => {
    const box = document.createElement("p"), label = document.createElement("span"), value = document.createElement(row.file ? "a" : "output");
    label.textContent = row.label;
    if (row.file) {
      value.href = URL.createObjectURL(new Blob([bytesOf(row.value)], { type: "application/octet-stream" }));
      value.download = value.textContent = row.file;
      box.append(label, value);
      return box;
    }
    value.textContent = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(row.value) ? new Date(row.value).toLocaleString() : row.value;
    box.append(label, value);
    return box;
  }));
  part("text").textContent = "";
  revealing(form, true);
  form.querySelector(".plain").focus();
  return true;
}

// asking shows the field for a reason, or hides it.
function asking(form, label) {
  part("reason").hidden = !label;
  part("reason").querySelector("span").textContent = label;
  form.reason.required = Boolean(label);
}

// second turns what one may not do alone into something to propose.
function second(form) {
  pending.propose = true;
  pending.key = crypto.randomUUID();
  asking(form, "Reason, for the ledger and for the second person");
  const go = form.querySelector(".do");
  go.textContent = "Propose it";
  go.disabled = false;
  form.reason.focus();
}

async function act(form) {
  if (pending.typed && form.typed.value.trim() !== pending.typed) {
    part("problem").textContent = "That is not " + pending.typed + ".";
    form.typed.focus();
    return;
  }
  const go = form.querySelector(".do");
  go.disabled = true;
  part("problem").textContent = "";
  const init = { method: pending.method, headers: { "Idempotency-Key": pending.key, Accept: "application/json" }, credentials: "same-origin" };
  if (pending.propose) init.headers["Hallmark-Propose"] = form.reason.value.trim().replace(/\s+/g, " ");
  let path = pending.path;
  if (pending.fields.some((f) => f.kind === "upload")) path = await uploaded(form, init);
  else if (pending.body) {
    const body = await filled(form, JSON.parse(pending.body));
    if (pending.field) body[pending.field] = form.reason.value.trim();
    path = path.replace(/\{(\w+)\}/, (_, name) => { const value = body[name]; delete body[name]; return encodeURIComponent(value); });
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  try {
    const answer = await fetch(path, init);
    if (!answer.ok) {
      const said = await problem(answer);
      part("stepup").hidden = !said.stepUp;
      if (said.stepUp) pending.key = crypto.randomUUID(); // asked anew, once it is known who asks
      if (said.fourEyes) { part("problem").textContent = "One person may not do this alone. Propose it, and somebody else who may do it approves."; second(form); return; }
      throw new Error(said.text);
    }
    if (answer.status === 202) { dialog.close(); location.href = "/proposals/" + encodeURIComponent((await answer.json()).id); return; }
    say(pending.label + ": done.");
    if (pending.reveal.length === 0 || !reveal(form, await answer.json())) dialog.close();
    setTimeout(() => say(""), 6000);
    refresh();
  } catch (e) {
    part("problem").textContent = e.message;
    go.disabled = false;
  }
}

async function problem(answer) {
  const text = await answer.text();
  try {
    const p = JSON.parse(text);
    const more = (p.errors || []).map((e) => e.message).filter(Boolean).join("; ");
    return { text: [p.detail || p.title || "The server refused it.", more].filter(Boolean).join(" "), stepUp: String(p.type).endsWith(":access.step-up"), fourEyes: String(p.type).endsWith(":access.four-eyes") };
  } catch {
    return { text: "The server answered " + answer.status + ".", stepUp: false };
  }
}

document.addEventListener("click", (e) => {
  const b = e.target.closest("button.act[data-path]"); // others look so, and do something of their own
  if (b) ask(b);
  if (e.target.closest("#confirm .plain")) dialog.close();
});
dialog?.querySelector("form").addEventListener("submit", (e) => { e.preventDefault(); act(e.target); });
dialog?.addEventListener("close", () => { part("answer").replaceChildren(); (pending?.from.isConnected ? pending.from : pending?.back())?.focus({ preventScroll: true }); });

// Live: one stream a tab says what changed; the page's main part is fetched again when that concerns it.

const busy = () => dialog?.open || document.activeElement?.closest("main form") || !getSelection().isCollapsed;
let stale = 0, loading = false;

async function refresh() {
  clearTimeout(stale);
  stale = 0;
  if (loading) { later(); return; }
  if (busy()) { later(); return; }
  loading = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") { location.href = "/login"; return; }
    if (!answer.ok) { if (answer.status >= 500 || answer.status === 429) again(); return; }
    const text = await answer.text();
    if (busy()) { later(); return; }
    const next = new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, "text/html").getElementById("main");
    const main = document.getElementById("main");
    if (!next) return;
    const back = place(main), scrolls = [...main.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
    main.dataset.since = next.dataset.since || "";
    enhance(next);
    if (next.innerHTML === main.innerHTML) return;
    main.replaceChildren(...next.childNodes);
    main.querySelectorAll(".scroll").forEach((s, i) => { s.scrollLeft = scrolls[i] || 0; });
    back()?.focus({ preventScroll: true });
  } catch { again(); } finally { loading = false; }
}

// place remembers where the focus is in the main part; what it gives finds the same again when the part is another. Whoever goes by
// keyboard stays where they are.
function place(main, at = document.activeElement) {
  if (!at || at === main || !main.contains(at)) return () => null;
  const name = (e) => [e.id, e.tagName, e.getAttribute("href"), e.dataset.path, e.dataset.title, e.textContent.trim().slice(0, 80)].join("\n");
  const like = () => [...main.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
  const wanted = name(at), nth = like().filter((e) => name(e) === wanted).indexOf(at);
  return () => { const same = like().filter((e) => name(e) === wanted); return same[nth] || same[0]; };
}

// again looks once more after it could not: what changed was told, and is not told a second time.
function again() { if (!stale) stale = setTimeout(refresh, 5000); }

function later() { if (!stale) stale = setTimeout(refresh, 1200); }

function concerns(fact) {
  const main = document.getElementById("main");
  const kinds = (main.dataset.kinds || "").split(" ").filter(Boolean), subjects = (main.dataset.subjects || "").split(" ").filter(Boolean);
  return kinds.some((k) => k === "*" || fact.kind?.startsWith(k)) && (subjects.length === 0 || subjects.includes(fact.subject));
}

function lamp(on, text) {
  const p = document.getElementById("pulse");
  p.hidden = false;
  p.classList.toggle("on", on);
  p.querySelector(".text").textContent = text;
}

function listen() {
  const main = document.getElementById("main");
  if (!document.getElementById("pulse") || !main.dataset.kinds) return;
  let poll = 0;
  const stream = new EventSource("/api/v1/events?from=" + encodeURIComponent(main.dataset.since || "")); // what happened since it was read
  stream.onopen = () => { clearInterval(poll); poll = 0; lamp(true, "Live"); };
  stream.addEventListener("fact", (e) => { try { if (concerns(JSON.parse(e.data))) { if (!stale) stale = setTimeout(refresh, 400); } } catch { later(); } });
  stream.addEventListener("reset", later); // it was away too long to be told what it missed
  stream.onerror = () => {
    lamp(false, "Looks again every 20 s");
    if (!poll) poll = setInterval(later, 20000);
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => { clearInterval(poll); listen(); }, 60000);
  };
  addEventListener("pagehide", () => stream.close());
}

enhance(document);
listen();
