"use strict";
// The page asks for what it shows every two seconds and makes nodes of it. Texts become text nodes alone, never markup: names come from files
// and from those who join.

const $ = id => document.getElementById(id);
const every = 2000;
const state = { q: "", sort: "rate", from: 0, clients: 0, open: null, hours: false, show: 25 };
let data = null, heard = 0, timer = 0, asked = 0;

function el(tag, attributes, ...children) {
  const e = document.createElement(tag);
  fill(e, attributes, children);
  return e;
}
function svg(tag, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(e, attributes, children);
  return e;
}
function fill(e, attributes, children) {
  for (const [k, v] of Object.entries(attributes || {})) {
    if (k === "on") e.addEventListener("click", v);
    else if (v !== undefined && v !== null && v !== false) e.setAttribute(k, v);
  }
  for (const c of children.flat(Infinity)) if (c !== null && c !== undefined) e.append(c);
}

// Amounts, in decimal units of at most three digits.
function scaled(v, units) {
  let i = 0;
  while (v >= 999.5 && i < units.length - 1) { v /= 1000; i++; }
  return [v === 0 ? "0" : v < 10 && i > 0 ? v.toFixed(2) : v < 100 && i > 0 ? v.toFixed(1) : v.toFixed(0), units[i]];
}
const bits = v => scaled(v * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
const bytes = v => scaled(v, ["B", "kB", "MB", "GB", "TB", "PB"]);
const count = v => v.toLocaleString("en");
function seconds(v) {
  if (v >= 1) return [v.toFixed(2), "s"];
  const ms = v * 1000;
  return ms >= 100 ? [ms.toFixed(0), "ms"] : ms >= 1 ? [ms.toFixed(1), "ms"] : [ms.toFixed(2), "ms"];
}
const joined = p => p[0] + " " + p[1];
function span(s) {
  if (s < 60) return Math.round(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}
const since = s => s < 0 ? "never" : s < 2 ? "now" : span(s) + " ago";

function amount(pair, none) {
  if (!pair) return el("span", { class: "zero" }, none || "–");
  return el("span", pair[0] === "0" ? { class: "zero" } : {}, pair[0], " ", el("span", { class: "unit" }, pair[1]));
}
const rate = v => amount(v === null ? null : bits(v));

// Charts.
function path(values, top, w, h, x0) {
  let d = "", pen = false;
  values.forEach((v, i) => {
    if (v === null) { pen = false; return; }
    const x = x0 + i * w / (values.length - 1), y = h - v / top * h;
    d += (pen ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
    pen = true;
  });
  return d;
}
function area(values, top, w, h) {
  let d = "", first = -1, last = -1;
  const close = () => { if (first >= 0) d += "L" + last.toFixed(1) + " " + h + "L" + first.toFixed(1) + " " + h + "Z"; first = -1; };
  values.forEach((v, i) => {
    if (v === null) return close();
    const x = i * w / (values.length - 1), y = h - v / top * h;
    d += (first < 0 ? "M" : "L") + x.toFixed(1) + " " + y.toFixed(1);
    if (first < 0) first = x;
    last = x;
  });
  close();
  return d;
}
function ceiling(v) { // the next of 1, 2, 5 times a power of ten
  if (!(v > 0)) return 1;
  const p = Math.pow(10, Math.floor(Math.log10(v)));
  return [1, 2, 5, 10].map(f => f * p).find(x => x >= v);
}
function most(...lists) { return Math.max(0, ...lists.flat().filter(v => v !== null)); }
function chart(lines, word, c, what) {
  const w = 600, h = 78, top = ceiling(most(...lines.map(l => c[l])));
  const s = svg("svg", { class: "chart", viewBox: "0 -14 " + w + " 110", preserveAspectRatio: "none", role: "img", "aria-label": what });
  const length = c.step * c[lines[0]].length;
  s.append(svg("line", { class: "grid", x1: 0, x2: w, y1: 0, y2: 0 }), svg("line", { class: "grid", x1: 0, x2: w, y1: h / 2, y2: h / 2 }), svg("line", { class: "grid", x1: 0, x2: w, y1: h, y2: h }));
  for (const l of lines) {
    if (l !== "rtt") s.append(svg("path", { class: "area-" + l, d: area(c[l], top, w, h) }));
    s.append(svg("path", { class: l, d: path(c[l], top, w, h, 0) }));
  }
  const ends = el("div", { class: "spans dim" }, el("span", {}, span(length) + " ago"), el("span", {}, "top line " + word(top)), el("span", {}, "now"));
  return el("div", {}, s, ends);
}
function spark(values) {
  const s = svg("svg", { class: "spark", viewBox: "0 0 100 24", "aria-hidden": "true" });
  const top = most(values);
  if (top > 0) s.append(svg("path", { d: path(values, top * 1.15, 100, 23, 0) }));
  return s;
}

async function get(url) {
  const r = await fetch(url, { cache: "no-store" });
  if (!r.ok) throw new Error(r.status + " " + (await r.text()).slice(0, 200));
  return r.json();
}
const courses = new Map();
async function course(tunnel, peer) {
  const key = tunnel + "\n" + (peer || "") + "\n" + state.hours;
  try {
    courses.set(key, await get("api/course?tunnel=" + encodeURIComponent(tunnel) + (peer ? "&peer=" + encodeURIComponent(peer) : "") + (state.hours ? "&hours=1" : "")));
  } catch (e) { courses.delete(key); }
}
const known = (tunnel, peer) => courses.get(tunnel + "\n" + (peer || "") + "\n" + state.hours);

async function refresh() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const q = new URLSearchParams({ q: state.q, sort: state.sort, from: state.from, clients: state.clients, show: state.show });
    const d = await get("api/now?" + q);
    if (turn !== asked) return;
    await Promise.all(d.tunnels.slice(0, 8).map(t => course(t.name)).concat(state.open ? [course(state.open.tunnel, state.open.key)] : []));
    if (turn !== asked) return;
    data = d;
    heard = Date.now();
    $("trouble").hidden = true;
    draw();
  } catch (e) {
    if (turn !== asked) return;
    $("trouble").textContent = heard ? "No answer from the daemon since " + span((Date.now() - heard) / 1000) + ": what is shown is old." : "No answer from the daemon.";
    $("trouble").hidden = false;
    $("state").textContent = "no answer";
    $("state").className = "pill bad";
  }
  if (turn === asked) timer = setTimeout(refresh, document.hidden ? 5 * every : every);
}

function draw() {
  const d = data;
  document.title = d.name + " · culvert";
  $("name").textContent = d.name;
  $("facts").textContent = (d.up >= 0 ? "up for " + span(d.up) : "") + (d.file ? " · " + d.file : "");
  const drift = d.network ? d.network.drift.length + (d.network.more || 0) : 0;
  const down = d.tunnels.filter(t => !t.up).length;
  const silent = d.tunnels.reduce((n, t) => n + (t.silent || 0), 0);
  const [text, kind] = !d.ready ? ["starting or ending", "warn"] : down ? [down + (down > 1 ? " tunnels" : " tunnel") + " down", "bad"] :
    d.reload && d.reload.failed ? ["last reload failed", "warn"] : drift ? ["not as declared", "warn"] :
    silent ? [count(silent) + (silent > 1 ? " peers do not answer" : " peer does not answer"), "warn"] : ["all is well", "good"];
  $("state").textContent = text;
  $("state").className = "pill " + kind;
  $("version").textContent = "culvert " + d.version;
  $("age").textContent = new Date(d.time).toLocaleTimeString();
  drawTunnels(d);
  drawPeers(d);
  drawClients(d);
  drawDrops(d);
  drawNetwork(d);
  $("graph-part").hidden = !d.graph;
  if (d.graph && !$("graph").src) $("graph").src = "graph.svg";
}

function choose(text, hours) {
  return el("button", { type: "button", class: "plain", "aria-pressed": String(state.hours === hours), on: () => { state.hours = hours; refresh(); } }, text);
}
function number(label, dot, pair) {
  return el("div", {}, el("dt", {}, dot ? el("span", { class: "dot " + dot }) : null, label), el("dd", {}, pair ? [pair[0], el("small", {}, pair[1])] : "–"));
}
function drawTunnels(d) {
  if (!d.tunnels.length) return $("tunnels").replaceChildren(el("div", { class: "card empty" }, d.ready ? "This instance has no tunnels." : "No tunnel is up yet."));
  $("tunnels").replaceChildren(...d.tunnels.map(t => {
    const c = known(t.name);
    return el("article", { class: "card" },
      el("div", { class: "top" }, el("strong", {}, t.name), el("span", { class: "dim" }, t.mode + (t.port ? " · port " + t.port : "") + " · MTU " + t.mtu),
        el("span", { class: "pill " + (!t.up ? "bad" : t.silent ? "warn" : "good") }, t.up ? t.connected + " of " + t.peers + " connected" : "down")),
      el("dl", { class: "numbers" }, number("received", "in", t.in === null ? null : bits(t.in)), number("sent", "out", t.out === null ? null : bits(t.out)),
        number("round trip", "", t.rtt === null ? null : seconds(t.rtt))),
      c ? chart(["in", "out"], v => joined(bits(v)), c, "rates of " + t.name) : null,
      el("div", { class: "spans" }, el("span", { class: "dim" }, joined(bytes(t.received)) + " received, " + joined(bytes(t.sent)) + " sent"),
        el("span", {}, choose("5 min", false), choose("24 h", true))),
      (t.notes || []).map(n => el("p", { class: "note" }, n)));
  }));
}

const label = text => el("span", { class: "label" }, text);
function drawPeers(d) {
  $("peer-count").textContent = d.found === d.all ? count(d.all) : count(d.found) + " of " + count(d.all);
  const focused = document.activeElement && document.activeElement.dataset.at;
  const rows = d.peers.map(p => {
    const open = state.open && state.open.key === p.key && state.open.tunnel === p.tunnel;
    const row = el("button", { type: "button", class: "row peer", "data-at": p.tunnel + " " + p.key, "aria-expanded": String(!!open), on: () => { state.open = open ? null : { tunnel: p.tunnel, key: p.key }; refresh(); } },
      el("span", { class: "name" }, el("span", { class: "dot " + (p.silent ? "bad" : p.connected ? "good" : ""), title: p.silent ? "does not answer" : p.connected ? "has a session" : "no session" }),
        el("span", {}, el("b", {}, p.name || p.key.slice(0, 12) + "…"), el("span", { class: "sub" }, p.tunnel + " · " + (p.shut ? p.shut : p.endpoint ? p.endpoint + (p.tcp ? " over TCP" : "") : "no address known") + (p.silent ? " · does not answer" : "")))),
      el("span", { class: "right" }, label("received"), rate(p.in)),
      el("span", { class: "right" }, label("sent"), rate(p.out)),
      el("span", { class: "right" }, label("round trip"), amount(p.rtt === null ? null : seconds(p.rtt)), p.loss > 0.0005 ? el("span", { class: "sub hot" }, (100 * p.loss).toFixed(1) + " % lost") : null),
      el("span", { class: "sparkcell" }, p.spark ? spark(p.spark) : null),
      el("span", { class: "right hand" }, el("span", { class: "dim" }, since(p.handshake))));
    return open ? [row, details(p)] : [row];
  }).flat();
  const head = el("div", { class: "row peer head" }, el("span", {}, "name"), el("span", { class: "right" }, "received"), el("span", { class: "right" }, "sent"),
    el("span", { class: "right" }, "round trip"), el("span", {}, "last minute"), el("span", { class: "right" }, "handshake"));
  $("peers").replaceChildren(...(rows.length ? [head, ...rows] : [el("div", { class: "empty" }, d.all ? "No peer fits the search." : "No peers are configured.")]));
  if (focused) for (const r of $("peers").querySelectorAll("button.row")) if (r.dataset.at === focused) r.focus({ preventScroll: true });
  pager("peer-pager", "prev", "next", "where", state.from, d.peers.length, d.found);
}
function details(p) {
  const facts = [["public key", p.key], ["wire", p.wire + (p.suite ? ", " + p.suite : "")], ["carried", joined(bytes(p.received)) + " received, " + joined(bytes(p.sent)) + " sent"]];
  if (p.allowed && p.allowed.length) facts.push(["allowed IPs", p.allowed.join(", ") + (p.more_ips ? " and " + p.more_ips + " more" : "")]);
  if (p.path) facts.push(["path MTU", p.path + " bytes of UDP"]);
  if (p.loss !== undefined) facts.push(["loss to peer", (100 * p.loss).toFixed(2) + " %"]);
  if (p.attempts) facts.push(["unanswered handshakes", String(p.attempts)]);
  if (p.refused) facts.push(["refused by its rules", count(p.refused) + " packets"]);
  const c = p.course ? known(p.tunnel, p.key) : null;
  return el("div", { class: "more" }, el("dl", {}, facts.map(f => [el("dt", {}, f[0]), el("dd", {}, f[1])])),
    c ? [chart(["in", "out"], v => joined(bits(v)), c, "rates of the peer"), most(c.rtt) > 0 ? chart(["rtt"], v => "round trip " + joined(seconds(v)), c, "round trips of the peer") : null]
      : el("p", { class: "dim" }, "Nothing is remembered of this peer: it has carried nothing, or others came before it."));
}
function pager(id, prev, next, where, from, shown, all) {
  $(id).hidden = all <= state.show;
  $(prev).disabled = from === 0;
  $(next).disabled = from + shown >= all;
  $(where).textContent = all ? count(Math.min(from + 1, all)) + " to " + count(from + shown) + " of " + count(all) : "";
  if (from >= all && from > 0) { if (id === "peer-pager") state.from = 0; else state.clients = 0; }
}
function drawClients(d) {
  $("client-part").hidden = !d.serves;
  if (!d.serves) return;
  $("client-count").textContent = count(d.joined) + (d.invited ? ", " + count(d.invited) + " invited" : "");
  const head = el("div", { class: "row client head" }, el("span", {}, "name"), el("span", {}, "addresses"), el("span", { class: "right" }, "received"), el("span", { class: "right" }, "sent"), el("span", { class: "right" }, "last seen"));
  const rows = d.clients.map(c => el("div", { class: "row client" },
    el("span", { class: "name" }, el("span", { class: "dot " + (c.connected ? "good" : "") }), el("span", {}, el("b", {}, c.name), el("span", { class: "sub" }, c.tunnel + (c.group ? " · " + c.group : "") + (c.sign_in ? " · has to sign in" : "")))),
    el("span", { class: "addresses wrap dim" }, (c.addresses || []).join(", ")),
    el("span", { class: "right" }, label("received"), amount(bytes(c.received))), el("span", { class: "right" }, label("sent"), amount(bytes(c.sent))),
    el("span", { class: "right dim" }, label("last seen"), c.connected ? "now" : since(c.seen))));
  $("clients").replaceChildren(...(rows.length ? [head, ...rows] : [el("div", { class: "empty" }, state.q ? "No client fits the search." : "Nobody has joined yet: culvert invite NAME makes a link.")]));
  pager("client-pager", "cprev", "cnext", "cwhere", state.clients, d.clients.length, d.joined);
}
function drawDrops(d) {
  const several = d.tunnels.length > 1;
  $("drops").replaceChildren(...(d.drops.length ? d.drops.map(x => el("div", { class: "row drop" },
    el("span", { class: "wrap" }, x.reason, several ? el("span", { class: "sub" }, x.tunnel) : null),
    el("span", { class: "right" }, count(x.total)),
    el("span", { class: "right " + (x.rate > 0 ? "hot" : "zero") }, x.rate > 0 ? (x.rate < 10 ? x.rate.toFixed(1) : count(Math.round(x.rate))) + "/s" : "quiet"))) :
    [el("div", { class: "empty" }, "No packet was dropped.")]));
}
function drawNetwork(d) {
  const n = d.network;
  $("net-count").textContent = n ? count(n.things) + " things declared" : "";
  if (!n) return $("net").replaceChildren(el("div", { class: "empty" }, "The file declares no network around the tunnels."));
  const rows = [];
  if (n.trial) rows.push(el("div", { class: "row" }, el("span", { class: "note" }, "A change is on trial: it is undone unless it is confirmed.")));
  if (n.error) rows.push(el("div", { class: "row" }, el("span", { class: "hot wrap" }, "It could not be compared: " + n.error)));
  for (const x of n.drift) rows.push(el("div", { class: "row drift" }, el("span", { class: "tag " + x.is }, x.is), el("span", { class: "wrap" }, x.text, x.line ? el("span", { class: "sub" }, x.line) : null)));
  if (n.more) rows.push(el("div", { class: "row dim" }, "and " + count(n.more) + " more"));
  if (!rows.length) rows.push(el("div", { class: "empty" }, "All is as declared. Looked at " + since(n.checked) + "."));
  $("net").replaceChildren(...rows);
}

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.q = $("search").value; state.from = state.clients = 0; refresh(); }, 200);
});
$("sort").addEventListener("change", () => { state.sort = $("sort").value; state.from = 0; refresh(); });
$("prev").addEventListener("click", () => { state.from = Math.max(0, state.from - state.show); refresh(); });
$("next").addEventListener("click", () => { state.from += state.show; refresh(); });
$("cprev").addEventListener("click", () => { state.clients = Math.max(0, state.clients - state.show); refresh(); });
$("cnext").addEventListener("click", () => { state.clients += state.show; refresh(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
