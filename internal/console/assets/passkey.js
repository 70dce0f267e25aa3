// Passkeys: signing in, proving again that it is you, and keeping one's own. The server's ceremonies are under /auth/.
"use strict";

const raw = (s) => Uint8Array.from(atob(s.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const url64 = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function post(path, body, method = "POST") {
  const answer = await fetch(path, {
    method, credentials: "same-origin", headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  let got = {};
  try { got = JSON.parse(text); } catch { /* no body, or none for us */ }
  if (!answer.ok) throw new Error(got.detail || got.title || "The server answered " + answer.status + ".");
  return got;
}

const listed = (c) => ({ ...c, id: raw(c.id) });

function answered(c) {
  const r = c.response, response = { clientDataJSON: url64(r.clientDataJSON) };
  for (const k of ["attestationObject", "authenticatorData", "signature", "userHandle"]) if (r[k]) response[k] = url64(r[k]);
  if (r.getTransports) response.transports = r.getTransports();
  return { id: c.id, rawId: url64(c.rawId), type: c.type, response, clientExtensionResults: c.getClientExtensionResults(), authenticatorAttachment: c.authenticatorAttachment };
}

async function prove(what) {
  const { publicKey } = await post(`/auth/passkey/${what}/begin`);
  publicKey.challenge = raw(publicKey.challenge);
  if (publicKey.allowCredentials) publicKey.allowCredentials = publicKey.allowCredentials.map(listed);
  return post(`/auth/passkey/${what}/finish`, answered(await navigator.credentials.get({ publicKey })));
}

async function add(label) {
  const { publicKey } = await post("/auth/passkey/register/begin");
  publicKey.challenge = raw(publicKey.challenge);
  publicKey.user.id = raw(publicKey.user.id);
  if (publicKey.excludeCredentials) publicKey.excludeCredentials = publicKey.excludeCredentials.map(listed);
  return post("/auth/passkey/register/finish?label=" + encodeURIComponent(label), answered(await navigator.credentials.create({ publicKey })));
}

const node = (tag, text, attrs = {}) => {
  const e = document.createElement(tag);
  e.textContent = text;
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  return e;
};

async function list() {
  const at = document.getElementById("passkey-list"), got = await (await fetch("/auth/passkeys", { credentials: "same-origin" })).json();
  const keys = Array.isArray(got) ? got : got.passkeys || [];
  if (keys.length === 0) { at.replaceChildren(node("p", "You have none yet.", { class: "empty" })); return; }
  const box = node("div", "", { class: "scroll" }), table = node("table", ""), body = node("tbody", "");
  table.append(node("caption", "Your passkeys"), body);
  for (const k of keys) {
    const tr = node("tr", ""), td = node("td", ""), b = node("button", "Remove", { type: "button", class: "act bad" });
    b.addEventListener("click", () => tell(() => post("/auth/passkeys/" + encodeURIComponent(k.id), undefined, "DELETE").then(list)));
    td.append(b);
    tr.append(node("th", k.label || "without a name", { scope: "row" }), node("td", k.created ? new Date(k.created).toLocaleString() : ""), td);
    body.append(tr);
  }
  box.append(table);
  at.replaceChildren(box);
}

async function tell(what) {
  const at = document.getElementById("passkey-problem");
  if (at) at.textContent = "";
  try {
    await what();
  } catch (e) {
    if (at) at.textContent = e.name === "NotAllowedError" ? "Nothing was chosen, or it took too long." : e.message;
  }
}

if (window.PublicKeyCredential) {
  const login = document.getElementById("passkey-login");
  if (login) {
    login.hidden = false;
    login.querySelector("button").addEventListener("click", () => tell(async () => { await prove("login"); location.href = "/"; }));
  }
  const stepup = document.getElementById("stepup");
  stepup?.addEventListener("click", async () => {
    const at = document.getElementById("confirm-problem");
    try {
      await prove("verify");
      document.getElementById("confirm-stepup").hidden = true;
      at.textContent = "";
      stepup.closest("form").requestSubmit();
    } catch (e) { at.textContent = e.name === "NotAllowedError" ? "Nothing was chosen, or it took too long." : e.message; }
  });
  const more = document.getElementById("passkey-add");
  if (more) {
    more.disabled = false;
    more.addEventListener("click", () => tell(async () => { await add(document.getElementById("passkey-label").value.trim() || "passkey"); await list(); }));
  }
}
const out = document.getElementById("logout");
if (out) {
  out.disabled = false;
  out.addEventListener("click", () => tell(async () => { await post("/auth/logout"); location.href = "/login"; }));
  tell(list);
}
