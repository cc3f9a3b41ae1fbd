// The page of the service: all it shows comes from the HTTP interface, as the account whose token was given.

import { html, row, whole, word } from "./elements.js";
import { draw } from "./picture.js";

const API = "/workflows/v1";
const SHOWN = 50, WEEK = 168, BUSY = 1000, QUIET = 4000;  // workflows, hours, and milliseconds between two looks

let token = sessionStorage.getItem("token") || "";
let log = null;  // the log that is open: { task: its id, stream }
let turn = 0;  // rises with each drawing; an answer that comes after a later question is dropped
const drawn = new Map();  // id of an element -> what it shows, so that nothing is drawn twice

const at = id => document.getElementById(id);
const link = (text, act) => html("button", { class: "link", type: "button", click: act }, text);
const pill = state => html("span", { class: `state ${state.event}`, title: whole(state) }, word(state));
const quiet = (...children) => html("span", { class: "quiet" }, ...children);
const button = (text, act) => html("button", { type: "button", click: act }, text);
const pick = (...keys) => one => Object.fromEntries(keys.map(key => [key, one[key]]));

function clock(text) {
  const shown = new Date(text).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
  return html("time", { datetime: text, title: text }, shown);
}

function took(one) {
  if (!one.completed_time) { return ""; }
  const seconds = (Date.parse(one.completed_time) - Date.parse(one.submitted_time)) / 1000;
  return seconds < 100 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`;
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) { return answer; }
  const said = await answer.json().catch(() => ({ message: `the service answered ${answer.status}` }));
  throw Object.assign(new Error(said.message), { status: answer.status });
}
const json = async (path, options) => (await ask(path, options)).json();
const path = (...parts) => [API, ...parts.map(encodeURIComponent)].join("/");

function put(id, data, build) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) { return; }
  drawn.set(id, text);
  at(id).replaceChildren(...build(data));
}

async function save(address, name) {
  const blob = await (await ask(address)).blob();
  const place = URL.createObjectURL(blob);
  html("a", { href: place, download: name }).click();
  URL.revokeObjectURL(place);
}
const downloads = (address, name) => [["CWL", "cwl"], ["OGC package", "eoap"]].map(([label, format]) =>
  button(label, () => report(save(`${address}?format=${format}`, `${name}.${format}.cwl`))));

// --- what is shown

async function home(current) {
  const body = JSON.stringify({ lookback_h: WEEK, limit: SHOWN });
  const search = json(`${API}/workflows/search`, { method: "POST", body });
  const [{ tasks }, { Workflows: found }] = await Promise.all([json(`${API}/tasks`), search]);
  if (current !== turn) { return false; }
  put("tasks", tasks, names => names.length ? names.map(name => html("li", {}, taskLink(name)))
    : [quiet("None yet: ", html("code", {}, "gbdx-platform register"))]);
  const parts = pick("id", "name", "state", "submitted_time", "completed_time");
  const seen = found.map(one => ({ ...parts(one), size: String(one.tasks.length) }));
  const launch = quiet("None in the last week: ", html("code", {}, "gbdx-platform launch"));
  const rest = seen.length < SHOWN ? [] : [line(quiet(`These are the newest ${SHOWN} of the last week.`))];
  put("workflows", seen, list => list.length ? [...list.map(workflowRow), ...rest] : [line(launch)]);
  return found.some(one => one.state.state !== "complete");
}

const line = text => html("tr", {}, html("td", { colspan: 5 }, text));
const taskLink = name => html("a", { href: `#task/${encodeURIComponent(name)}` }, name);

function workflowRow(one) {
  const name = html("a", { href: `#workflow/${one.id}` }, one.name, html("br"), html("span", { class: "id" }, one.id));
  return row(name, pill(one.state), one.size, clock(one.submitted_time), took(one));
}

async function task(current, name) {
  const found = await json(path("tasks", name));
  if (current === turn) { put("definition", found, definition); }
  return false;
}

function definition(found) {
  const container = found.containerDescriptors[0], seconds = (found.properties || {}).timeout;
  const facts = Object.entries({
    image: container.properties.image, command: container.command, domain: container.properties.domain,
    timeout: seconds && `${seconds} s`, owner: found.taskOwnerEmail,
  }).filter(([, value]) => value);
  const kind = (port, way) =>
    [way, port.type, port.multiplex && "multiplex", port.required && "required"].filter(Boolean).join(", ");
  const ports = (list, way) => (list || []).map(port =>
    row(html("b", {}, port.name), kind(port, way), port.description || ""));
  return [
    html("div", { class: "head" }, html("h1", {}, found.name), html("span", { class: "id" }, found.version || ""),
      html("div", { class: "right" }, ...downloads(path("tasks", found.name), found.name))),
    html("p", {}, found.description || ""),
    html("dl", { class: "card" }, ...facts.flatMap(([key, value]) => [html("dt", {}, key), html("dd", {}, value)])),
    html("div", { class: "card" }, html("table", {},
      html("thead", {}, html("tr", {}, ...["port", "kind", "description"].map(text => html("th", {}, text)))),
      html("tbody", {}, ...ports(found.inputPortDescriptors, "input"), ...ports(found.outputPortDescriptors, "output")))),
  ];
}

async function workflow(current, id) {
  const [found, events] = await Promise.all([json(path("workflows", id)), json(path("workflows", id, "events"))]);
  if (current !== turn) { return false; }
  const open = (task, stream) => { log = { task: task.id, stream }; refresh(); };
  put("head", pick("id", "name", "state", "submitted_time", "completed_time")(found), workflowHead);
  const seen = found.tasks.map(pick("id", "name", "taskType", "state", "note", "inputs"));
  put("graph", seen, tasks => draw(tasks, task => open(task, task.state.event === "failed" ? "stderr" : "stdout")));
  put("steps", seen, tasks => tasks.map(task => row(
    html("b", {}, task.name), taskLink(task.taskType), pill(task.state), task.note || "",
    html("span", { class: "links" }, ...["stdout", "stderr"].map(stream => link(stream, () => open(task, stream)))))));
  put("events", events.Events, list => list.map(one => row(clock(one.timestamp), one.task, pill(one), one.note || "")));
  await showLog(current, id, found.tasks);
  return found.state.state !== "complete";
}

function workflowHead(found) {
  const address = path("workflows", found.id), time = took(found);
  const cancel = () => report(ask(`${address}/cancel`, { method: "POST" }).then(refresh));
  return [html("div", { class: "head" },
    html("h1", {}, found.name), pill(found.state), html("span", { class: "id" }, found.id),
    quiet("submitted ", clock(found.submitted_time), time && `, took ${time}`),
    html("div", { class: "right" }, ...(time ? [] : [button("Cancel", cancel)]), ...downloads(address, found.name)))];
}

async function showLog(current, id, tasks) {
  const chosen = log && tasks.find(task => task.id === log.task);
  at("log").hidden = !chosen;
  for (const one of document.querySelectorAll(".node")) {
    one.classList.toggle("open", Boolean(chosen) && one.dataset.task === chosen.name);
  }
  if (!chosen) { return; }
  const { stream } = log, text = await (await ask(path("workflows", id, "tasks", chosen.id, stream))).text();
  if (current !== turn) { return; }
  const area = at("logtext"), end = area.scrollTop + area.clientHeight >= area.scrollHeight - 4;
  put("logname", [chosen.name, stream], () => [`${chosen.name}: ${stream}`]);
  put("logtext", text, () => [text]);
  if (end) { area.scrollTop = area.scrollHeight; }
}

// --- what leads there

const VIEWS = { home, task, workflow };

async function show() {
  const current = turn += 1;
  const [asked, ...rest] = location.hash.slice(1).split("/");
  const name = !token ? "signin" : Object.hasOwn(VIEWS, asked) ? asked : "home";
  const busy = name === "signin" ? false : await VIEWS[name](current, decodeURIComponent(rest.join("/")));
  if (current !== turn) { return busy; }
  for (const view of ["signin", ...Object.keys(VIEWS)]) { at(view).hidden = view !== name; }
  at("live").hidden = at("leave").hidden = !token;
  return busy;
}

// Runs something and says what went wrong; a token that is no longer valid leads back to the form.
async function report(work) {
  try {
    const found = await work;
    at("said").textContent = "";
    return found;
  } catch (error) {
    if (error.status === 401) { forget(); await show(); }
    const lost = error instanceof TypeError;
    at("live").hidden = true;
    at("said").textContent = lost ? "The service does not answer; trying again." : error.message;
    return false;
  }
}
const refresh = () => report(show());

function forget(given = "") {
  token = given;
  sessionStorage.setItem("token", token);
  log = null;
  drawn.clear();
}

at("login").addEventListener("submit", event => {
  event.preventDefault();
  forget(at("token").value.trim());
  at("token").value = "";
  refresh();
});
at("leave").addEventListener("click", () => { forget(); refresh(); });
window.addEventListener("hashchange", () => { log = null; refresh(); });

async function poll() {
  const busy = token && !document.hidden ? await refresh() : false;
  setTimeout(poll, busy ? BUSY : QUIET);
}
if (!token) { show(); }
poll();
