// Script of the live page: updates the sections, and shows the rows of a scope. Texts of the ledger are set as text only.
"use strict";

const REFRESH_MILLISECONDS = 2000;
const COLOURS = {answered: "good", failed: "bad", pending: "working", cut: "late", replaced: "muted"};

// The width of the charts' image for each width of the window, as in style.css.
const chartWidth = () => [[1000, 960], [700, 640], [490, 440], [0, 311]].find(([from]) => window.innerWidth >= from)[1];

const element = id => document.getElementById(id);
const page = {scope: "0", seen: "", width: chartWidth(), starts: [0], next: null, request: 0};

async function load(path, parameters) {
  const response = await fetch(`${path}?${new URLSearchParams(parameters)}`);
  if (response.status === 204) return null;
  const type = response.headers.get("content-type") || "";
  if (!response.ok) {
    const reply = type.includes("json") ? await response.json() : {};
    throw new Error(reply.error || `The server answers with status ${response.status}.`);
  }
  return path === "request" ? response.text() : response.json();
}

function create(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// Sections

async function refresh() {
  try {
    const reply = await load("sections", {scope: page.scope, seen: page.seen, width: page.width});
    if (reply) showSections(reply);
  } catch (error) {
    element("updated").textContent = `No update: ${error.message}`;
  }
}

function showSections(reply) {
  const sections = element("sections");
  const open = [...sections.querySelectorAll("details")].map(details => details.open);
  sections.innerHTML = reply.html; // made by the report's template, which escapes each text of the ledger
  sections.querySelectorAll("details").forEach((details, place) => { details.open = open[place] || false; });
  const isFirst = !page.seen;
  page.seen = reply.seen;
  element("updated").textContent = `Updated ${reply.updated}`;
  showScopes(reply.scopes);
  if (isFirst && reply.scopes.length === 1) chooseScope(String(reply.scopes[0].id));
  else if (page.scope !== "0" && !isReading()) showRows({isUpdate: true});
}

function showScopes(scopes) {
  const select = element("scope");
  const known = new Set([...select.options].map(option => option.value));
  for (const scope of scopes) {
    const text = `${scope.label} (${scope.requests.toLocaleString("en")})`;
    if (known.has(String(scope.id))) select.querySelector(`[value="${scope.id}"]`).textContent = text;
    else select.append(create("option", {value: scope.id, textContent: text}));
  }
}

function chooseScope(id) {
  Object.assign(page, {scope: id, seen: page.seen && "changed", starts: [0]});
  element("scope").value = id;
  element("find").hidden = element("pages").hidden = id === "0";
  element("hint").hidden = id !== "0";
  element("list").replaceChildren();
  element("found").textContent = "";
  refresh();
  if (id !== "0") showRows();
}

// Rows

// An update must not take away the row that somebody reads.
const isReading = () => document.querySelector(".row[open]") !== null;

async function showRows({number = "", isUpdate = false} = {}) {
  const request = ++page.request;
  const start = page.starts.at(-1);
  const parameters = {scope: page.scope, after: start, state: element("state").value, text: element("text").value, number};
  element("found").textContent = parameters.text ? "Searching…" : "";
  try {
    const rows = [];
    let reply = {next: start};
    // A search returns after a second with the rows found so far.
    do {
      reply = await load("rows", {...parameters, after: reply.next ?? start});
      if (request !== page.request) return;
      rows.push(...reply.rows);
      parameters.number = "";
      if (parameters.text) element("found").textContent = `Searching… ${rows.length} found`;
    } while (parameters.text && reply.next !== null && rows.length < Number(element("rows").dataset.page));
    if (isUpdate && isReading()) return;
    if (number) page.starts = [0, reply.start];
    page.next = reply.next;
    fillList(rows);
    element("found").textContent = rows.length ? "" : "No rows.";
  } catch (error) {
    element("found").textContent = error.message;
  }
}

function fillList(rows) {
  element("list").replaceChildren(...rows.map(createRow));
  element("previous").disabled = page.starts.length < 2;
  element("next").disabled = page.next === null;
}

function createRow(row) {
  const dot = create("span", {className: "dot"});
  dot.style.setProperty("--c", `var(--${COLOURS[row.state]})`);
  const summary = create(
    "summary", {},
    create("span", {className: "state"}, dot, row.state),
    create("span", {className: "prompt", textContent: row.prompt ?? `row ${row.number.toLocaleString("en")}`}),
    create("span", {textContent: row.reason ? `${row.code} ${row.reason}` : row.answer}),
  );
  const details = create("details", {className: "row"}, summary);
  details.addEventListener("toggle", () => details.open && fillDetail(details, row.id));
  return details;
}

async function fillDetail(details, id) {
  const detail = create("div", {className: "detail"});
  details.querySelector(".detail")?.remove();
  details.append(detail);
  try {
    const row = await load("row", {id});
    const message = create("span", {className: "quiet", role: "status"});
    const actions = [
      button("Copy request as JSON", message, async () => copy(await load("request", {id}), "The request")),
      row.response && button("Copy response as JSON", message, () => copy(row.response, "The response")),
      row.prompt === null && button("Load prompts", message, () => load("request", {id}).then(() => showRows())),
    ];
    const texts = [
      text("Prompt", row.prompt),
      text("Reason", row.reason && `${row.code} ${row.reason}`),
      text("Answer", row.answer),
    ];
    const facts = row.facts.map(([name, value]) =>
      create("div", {}, create("dt", {textContent: name}), create("dd", {textContent: value})));
    detail.append(
      ...texts.filter(Boolean),
      create("dl", {}, ...facts),
      create("div", {className: "actions"}, ...actions.filter(Boolean), message),
    );
  } catch (error) {
    detail.append(create("p", {textContent: error.message}));
  }
}

function text(title, value) {
  return value ? create("div", {}, create("h3", {textContent: title}), create("pre", {textContent: value})) : null;
}

function button(label, message, action) {
  const node = create("button", {type: "button", textContent: label});
  node.addEventListener("click", async () => {
    message.textContent = "…";
    try {
      message.textContent = (await action()) || "";
    } catch (error) {
      message.textContent = error.message;
    }
  });
  return node;
}

async function copy(value, name) {
  await navigator.clipboard.writeText(value);
  return `${name} is in the clipboard.`;
}

function turnPage(isForward) {
  if (isForward) page.starts.push(page.next);
  else page.starts.pop();
  showRows();
}

element("scope").addEventListener("change", event => chooseScope(event.target.value));
element("find").addEventListener("submit", event => {
  event.preventDefault();
  page.starts = [0];
  showRows({number: element("number").value});
});
element("state").addEventListener("change", () => element("find").requestSubmit());
element("next").addEventListener("click", () => turnPage(true));
element("previous").addEventListener("click", () => turnPage(false));
window.addEventListener("resize", () => {
  if (page.width === chartWidth()) return;
  Object.assign(page, {width: chartWidth(), seen: page.seen && "changed"});
  refresh();
});
refresh();
setInterval(() => document.hidden || refresh(), REFRESH_MILLISECONDS);
