// Script of the live page: updates the sections, and shows the rows of a scope. Texts of the ledger are set as text only.
"use strict";

const REFRESH_MILLISECONDS = 2000;
// Touch screens send the click after the release, as an event of its own.
const CLICK_MILLISECONDS = 300;
const COLOURS = {answered: "good", failed: "bad", pending: "working", cut: "late", replaced: "muted"};

// The width of the charts' image for each width of the window, as in style.css.
const chartWidth = () => [[1000, 960], [700, 640], [490, 440], [0, 311]].find(([from]) => window.innerWidth >= from)[1];

const element = id => document.getElementById(id);
const page = {
  scope: "0", seen: "", width: chartWidth(), starts: [0], next: null, request: 0, loading: null, isUpdateDue: false,
};
const press = {ended: null, end: null, timer: 0};

async function load(path, parameters) {
  try {
    return await fetchReply(path, parameters);
  } finally {
    // A change of the page between press and release would lose the click: each reply and each error waits.
    await press.ended;
  }
}

async function fetchReply(path, parameters) {
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

// Make a node equal to a model, and keep the nodes that both have: focus, selection and scroll positions remain.
function update(node, model) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== model.data) node.data = model.data;
    return;
  }
  for (const {name} of [...node.attributes]) {
    if (name !== "open" && !model.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const attribute of model.attributes) {
    if (node.getAttribute(attribute.name) !== attribute.value) node.setAttributeNode(attribute.cloneNode());
  }
  updateChildren(node, model);
}

// Children with an id stand for the model's child with this id, other children for the model's child at their place.
function updateChildren(node, model) {
  const named = new Map([...node.children].map(child => [child.id, child]));
  let place = node.firstChild;
  const removeUntil = end => {
    while (place && place !== end) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  };
  for (const child of [...model.childNodes]) {
    if (child.id && named.has(child.id)) removeUntil(named.get(child.id));
    if (place?.nodeName === child.nodeName && place.id === child.id) {
      const kept = place;
      place = place.nextSibling;
      update(kept, child);
    } else {
      node.insertBefore(child, place);
    }
  }
  removeUntil(null);
}

// Presses

function startPress(event) {
  if (event.button !== 0 || !event.target.closest("summary, button")) return;
  clearTimeout(press.timer);
  press.timer = 0;
  press.ended ??= new Promise(resolve => { press.end = resolve; });
}

// A release may be lost: then a later movement without a pressed button ends the press.
function endPress(event) {
  if (!press.ended || event.buttons) return;
  const isClick = event.type === "click";
  if (isClick) clearTimeout(press.timer);
  if (isClick || !press.timer) press.timer = setTimeout(finishPress, isClick ? 0 : CLICK_MILLISECONDS);
}

function finishPress() {
  press.end();
  Object.assign(press, {ended: null, end: null, timer: 0});
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
  const model = sections.cloneNode();
  model.innerHTML = reply.html; // made by the report's template, which escapes each text of the ledger
  update(sections, model);
  const isFirst = !page.seen;
  page.seen = reply.seen;
  element("updated").textContent = `Updated ${reply.updated}`;
  showScopes(reply.scopes);
  if (isFirst && reply.scopes.length === 1) chooseScope(String(reply.scopes[0].id));
  else updateRows();
}

function showScopes(scopes) {
  const select = element("scope");
  const known = new Map([...select.options].map(option => [option.value, option]));
  for (const scope of scopes) {
    const textContent = `${scope.label} (${scope.requests.toLocaleString("en")})`;
    const option = create("option", {value: scope.id, textContent});
    if (known.has(option.value)) update(known.get(option.value), option);
    else select.append(option);
  }
}

function chooseScope(id) {
  Object.assign(page, {scope: id, seen: page.seen && "changed", starts: [0], request: page.request + 1});
  element("scope").value = id;
  element("find").hidden = element("pages").hidden = id === "0";
  element("hint").hidden = id !== "0";
  element("list").replaceChildren();
  element("found").textContent = "";
  refresh();
  if (id !== "0") showRows();
}

// Rows

// An update waits for the rows that the user requested last, since it would replace that request.
async function updateRows() {
  if (page.isUpdateDue) return;
  page.isUpdateDue = true;
  while (page.loading) await page.loading;
  page.isUpdateDue = false;
  if (page.scope !== "0") showRows({isUpdate: true});
}

function showRows(options = {}) {
  const loading = loadRows(options).finally(() => { if (page.loading === loading) page.loading = null; });
  page.loading = loading;
}

async function loadRows({number = "", isUpdate = false}) {
  const request = ++page.request;
  const start = page.starts.at(-1);
  const parameters = {scope: page.scope, after: start, state: element("state").value, text: element("text").value, number};
  const report = message => { if (!isUpdate) element("found").textContent = message; };
  report(parameters.text ? "Searching…" : "");
  try {
    const rows = [];
    let reply = {next: start};
    // A search returns after a second with the rows found so far.
    do {
      reply = await load("rows", {...parameters, after: reply.next ?? start});
      if (request !== page.request) return;
      rows.push(...reply.rows);
      parameters.number = "";
      if (parameters.text) report(`Searching… ${rows.length} found`);
    } while (parameters.text && reply.next !== null && rows.length < Number(element("rows").dataset.page));
    if (number) page.starts = [0, reply.start];
    page.next = reply.next;
    if (!isUpdate) element("list").replaceChildren();
    fillList(rows);
    element("found").textContent = rows.length ? "" : "No rows.";
  } catch (error) {
    element("found").textContent = error.message;
  }
}

// Rows are in the order of their ids. A row that somebody reads stays, also if the update does not contain the row.
function fillList(rows) {
  const list = element("list");
  const ids = new Set(rows.map(row => String(row.id)));
  const isGone = details => !details.open && !ids.has(details.dataset.id);
  [...list.children].filter(isGone).forEach(details => details.remove());
  let place = list.firstElementChild;
  for (const row of rows) {
    while (place && Number(place.dataset.id) < row.id) place = place.nextElementSibling;
    if (place?.dataset.id === String(row.id)) update(place.firstElementChild, createSummary(row));
    else list.insertBefore(createRow(row), place);
  }
  element("previous").disabled = page.starts.length < 2;
  element("next").disabled = page.next === null;
}

function createSummary(row) {
  const dot = create("span", {className: "dot"});
  dot.style.setProperty("--c", `var(--${COLOURS[row.state]})`);
  return create(
    "summary", {},
    create("span", {className: "state"}, dot, row.state),
    create("span", {className: "prompt", textContent: row.prompt ?? `row ${row.number.toLocaleString("en")}`}),
    create("span", {textContent: row.reason ? `${row.code} ${row.reason}` : row.answer}),
  );
}

function createRow(row) {
  const details = create("details", {className: "row"}, createSummary(row));
  details.dataset.id = row.id;
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
window.addEventListener("pointerdown", startPress);
for (const name of ["click", "pointerup", "pointercancel", "pointermove", "blur"]) window.addEventListener(name, endPress);
window.addEventListener("resize", () => {
  if (page.width === chartWidth()) return;
  Object.assign(page, {width: chartWidth(), seen: page.seen && "changed"});
  refresh();
});
refresh();
setInterval(() => document.hidden || refresh(), REFRESH_MILLISECONDS);
