// The status page: asks the admin port for its status document and shows it. Text from the
// gateway is only ever set as text, never as markup. The token stays in this tab.
"use strict";

const REFRESH_MS = 2000;
const HISTORY_EVERY = 15; // refreshes
const $ = (id) => document.getElementById(id);
const dash = "–";
let rounds = 0;
let perMinute = new Map();

function token() {
  // `#token` in the address is taken once and removed, so that it is neither kept nor shared.
  if (location.hash.length > 1) {
    sessionStorage.setItem("token", decodeURIComponent(location.hash.slice(1)));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token");
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { authorization: `Bearer ${token()}` } });
  if (answer.status === 401) throw new Error("token");
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

const seconds = (ms) => (ms === null ? dash : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const gigabytes = (bytes) => (bytes / 1e9).toFixed(0);

function sparkline(counts) {
  // null is a hole: the line is interrupted there.
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 60 10");
  svg.setAttribute("preserveAspectRatio", "none");
  const most = Math.max(1, ...counts.filter((n) => n !== null));
  let path = "";
  let down = false;
  counts.forEach((n, i) => {
    if (n !== null) path += `${down ? "L" : "M"}${i} ${(9.5 - (9 * n) / most).toFixed(2)}${down ? "" : "h0"}`;
    down = n !== null;
  });
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = `requests per minute over the last hour, at most ${most}`;
  svg.append(title, line);
  return svg;
}

function modelRow(model) {
  const row = element("tr");
  const cell = (text, className = "n") => row.append(element("td", text, className));
  const queueOld = model.engines_waiting.state !== "fresh";
  cell(model.model, "");
  cell(model.rung, `rung ${model.rung}`);
  cell(model.lanes_ready);
  cell(model.ready ? "0" : seconds(model.eta_ms));
  cell(model.held, model.held ? "n alarm" : "n");
  cell(model.in_flight);
  cell(model.queue_depth, queueOld ? "n old" : "n");
  if (queueOld) row.lastChild.title = `what waits in the engines is ${model.engines_waiting.state}`;
  cell((60 * model.offered_per_s).toFixed(1));
  const chart = element("td");
  chart.append(sparkline(perMinute.get(model.model) || []));
  row.append(chart);
  cell(model.outcomes.answered || 0);
  cell(model.outcomes.refused || 0);
  cell(model.outcomes.cut || 0, model.outcomes.cut ? "n alarm" : "n");
  cell(Object.values(model.cold_starts).reduce((a, b) => a + b, 0));
  cell(seconds(model.ttft_ms.p50));
  cell(seconds(model.ttft_ms.p95));
  cell(seconds(model.itl_ms.p50));
  return row;
}

function nodeBlock(node, models) {
  const block = element("div", undefined, "node");
  const host = `${gigabytes(node.host_reserved_bytes)} of ${gigabytes(node.host_bytes)} GB host memory`;
  const head = element("div", `${node.node}: ${host}`);
  if (!node.alive) head.append(" ", element("span", "not heard", "alarm"));
  const gpus = element("div", undefined, "gpus");
  const here = models.flatMap((m) => m.replicas).filter((r) => r.node_id === node.node);
  for (const gpu of node.gpus) {
    const one = element("div", undefined, "gpu");
    const bar = element("meter");
    bar.max = gpu.hbm_bytes;
    bar.value = gpu.reserved_bytes;
    bar.title = `${gigabytes(gpu.reserved_bytes)} of ${gigabytes(gpu.hbm_bytes)} GB`;
    const on = here.filter((r) => r.gpu_ids.includes(gpu.gpu_id));
    const names = on.map((r) => `${r.replica_id} ${RUNGS[r.rung]}`).join(", ") || "empty";
    one.append(element("div", `GPU ${gpu.gpu_id}`), bar, element("div", names, "on"));
    gpus.append(one);
  }
  block.append(head, gpus);
  return block;
}

const RUNGS = ["cold", "shed", "parked", "warm", "serving"];

function list(id, lines) {
  const items = lines.length ? lines.map((line) => element("li", line)) : [element("li", "none", "none")];
  $(id).replaceChildren(...items);
}

function numbers(why) {
  const told = Object.entries(why.numbers || {}).map(([k, v]) => `${k} ${Number(v.toFixed(3))}`);
  return [why.code, ...told].join(", ");
}

function show(status) {
  const scale = status.time_scale === 1 ? "" : ` · trace time ×${status.time_scale}`;
  const past = status.history.problem ? ` · history: ${status.history.problem}` : "";
  $("facts").textContent = `catalog ${status.catalog_version}${scale}${status.stopping ? " · stopping" : ""}${past}`;
  $("facts").className = status.history.problem ? "alarm" : "";
  $("models").tBodies[0].replaceChildren(...status.models.map(modelRow));
  $("nodes").replaceChildren(...status.nodes.map((n) => nodeBlock(n, status.models)));
  list("pending", status.pending.map((a) => `${a.verb} ${a.replica_id || a.model_id} on ${a.node_id}: ${numbers(a.why)}`));
  list("wants", status.wants.map((w) => `${w.model_id}: ${w.why}`));
  list(
    "outcomes",
    status.outcomes.slice().reverse().map((o) => {
      const took = ((o.ended_us - o.began_us) / 1e6).toFixed(1);
      return `${o.verb} ${o.replica_id}: ${o.status} in ${took} s ${o.message}`;
    }),
  );
}

async function showHistory() {
  const now_us = (await ask("status")).now_us;
  const first = Math.floor(now_us / 60e6) - 60;
  const found = new Map();
  for (const row of (await ask("history?width_s=60&last_s=3660")).rows) {
    const at = Math.floor(row.start_us / 60e6) - first;
    if (!found.has(row.model)) found.set(row.model, new Array(60).fill(null));
    if (at >= 0 && at < 60 && row.covered_s >= row.width_s * 0.99) found.get(row.model)[at] = row.offered;
  }
  perMinute = found;
}

async function refresh() {
  if (!token()) return login("");
  try {
    if (rounds++ % HISTORY_EVERY === 0) await showHistory().catch(() => undefined);
    show(await ask("status"));
    $("page").hidden = false;
    $("login").hidden = true;
    $("trouble").hidden = true;
  } catch (error) {
    if (error.message === "token") {
      sessionStorage.removeItem("token");
      return login("That token is not this gateway's.");
    }
    complain(`The gateway does not answer (${error.message}); what is shown is old.`);
  }
  setTimeout(refresh, REFRESH_MS);
}

function complain(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function login(trouble) {
  $("login").hidden = false;
  $("page").hidden = true;
  complain(trouble);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  rounds = 0;
  refresh();
});
refresh();
