"use strict";
// Two engines side by side. Texts reach the page by textContent alone: nothing of a document is ever markup.

const $ = (selector, root = document) => root.querySelector(selector);
const KEY = "api-key", TOP = 10;
const columns = [];       // {engine, root, hits, asked}
const votes = new Map();  // "query\tdoc_id" -> grade
let query = "", serial = 0, fields = {};

async function ask(path, body) {
  const headers = {"Content-Type": "application/json"};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, body ? {method: "POST", headers, body: JSON.stringify(body)} : {headers});
  if (answer.status === 401) {
    await askForKey();
    return ask(path, body);
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error?.message ?? `the server answered ${answer.status}`);
  return found;
}

function askForKey() {
  const dialog = $("#key");
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    sessionStorage.setItem(KEY, $("input", dialog).value.trim());
    done();
  }, {once: true}));
}

const say = (text) => { $("#status").textContent = text; };

function addColumn(engines, chosen, number) {
  const root = $("#column").content.firstElementChild.cloneNode(true);
  const select = $("select", root);
  for (const name of engines) select.add(new Option(name, name, false, name === chosen));
  const column = {engine: chosen, root, hits: [], asked: 0};
  $("h2", root).textContent = number === 0 ? "Left results" : "Right results";
  select.addEventListener("change", () => {
    column.engine = select.value;
    remember();
    if (query) searchIn(column).then(compare);
  });
  columns.push(column);
  $("#columns").append(root);
}

function addFilters(found) {
  fields = found;
  const place = $("#filters");
  for (const [name, values] of Object.entries(found)) {
    const label = document.createElement("label");
    label.append(name === "doc_id" ? "id begins with " : `${name} `);
    const input = document.createElement(values.length ? "select" : "input");
    if (values.length) {
      input.add(new Option("any", ""));
      values.forEach((value, at) => input.add(new Option(String(value), String(at))));
    } else {
      input.size = 12;
    }
    input.dataset.field = name;
    input.addEventListener("change", search);
    label.append(input);
    place.append(label);
  }
}

function filters() {
  return [...$("#filters").querySelectorAll("[data-field]")].filter((each) => each.value !== "").map((each) => {
    const field = each.dataset.field, values = fields[field];
    return values.length ? {field, equals: values[Number(each.value)]} : {field, prefix: each.value};
  });
}

async function search() {
  query = $("#query").value.trim();
  remember();
  if (!query) return;
  say("Searching …");
  await Promise.all(columns.map(searchIn));
  compare();
}

async function searchIn(column) {
  const mine = column.asked = ++serial, asked = query;
  try {
    const found = await ask("/search", {query: asked, engine: column.engine, top: TOP, filters: filters()});
    if (column.asked !== mine) return;
    column.hits = found.hits;
    draw(column, found);
    if (found.hits.length) explain(column, mine, asked);
  } catch (error) {
    if (column.asked !== mine) return;
    column.hits = [];
    draw(column, null);
    column.failed = error.message;
  }
}

// Results are there before their sentences are: nobody waits for these.
async function explain(column, mine, asked) {
  const doc_ids = column.hits.map((hit) => hit.doc_id);
  const {why} = await ask("/search/why", {query: asked, engine: column.engine, doc_ids}).catch(() => ({why: {}}));
  if (column.asked !== mine) return;
  column.hits.forEach((hit, at) => highlight($(".hits", column.root).children[at], hit.text, why[hit.doc_id] ?? []));
}

function draw(column, found) {
  column.failed = "";
  const latency = $(".latency", column.root);
  latency.textContent = found ? `${found.latency_ms.total.toFixed(0)} ms` : "";
  latency.title = found ? Object.entries(found.latency_ms).map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join("\n") : "";
  if (found?.notes.length) latency.textContent += ` · ${found.notes.join("; ")}`;
  $(".hits", column.root).replaceChildren(...column.hits.map((hit) => drawHit(column, hit)));
}

function drawHit(column, hit) {
  const item = $("#hit").content.firstElementChild.cloneNode(true);
  const rank = document.createElement("span");
  rank.className = "rank";
  rank.textContent = hit.rank;
  $("h3", item).append(rank, hit.title || hit.doc_id);
  $(".text", item).textContent = hit.text;
  const about = Object.entries(hit.metadata).map(([name, value]) => `${name} ${value}`);
  $(".about", item).textContent = [hit.title ? hit.doc_id : "", ...about].filter(Boolean).join(" · ");
  for (const button of item.querySelectorAll(".vote")) {
    const word = button.dataset.grade === "1" ? "helps" : "does not help";
    button.setAttribute("aria-label", `${hit.title || hit.doc_id} ${word}`);
    button.title = word;
    button.addEventListener("click", () => vote(column, hit, Number(button.dataset.grade)));
  }
  $("article", item).dataset.docId = hit.doc_id;
  press(item, hit.doc_id);
  return item;
}

// Offsets count characters as Python does; a string here counts UTF-16 units.
function highlight(item, text, spans) {
  const letters = Array.from(text), place = $(".text", item);
  const parts = [];
  let at = 0;
  for (const {start, end} of spans) {
    const mark = document.createElement("mark");
    mark.textContent = letters.slice(start, end).join("");
    parts.push(letters.slice(at, start).join(""), mark);
    at = end;
  }
  place.replaceChildren(...parts, letters.slice(at).join(""));
  const first = $("mark", place);
  if (first) place.scrollTop = Math.max(0, first.offsetTop - place.offsetTop - 24);
}

// Where the other column has the same document.
function compare() {
  const [left, right] = columns;
  const faults = columns.map((column) => column.failed).filter(Boolean);
  if (right) {
    const place = new Map(left.hits.map((hit) => [hit.doc_id, hit.rank]));
    right.hits.forEach((hit, at) => {
      const before = place.get(hit.doc_id), item = $(".hits", right.root).children[at];
      $(".moved", item)?.remove();
      if (before === hit.rank) return;
      const moved = document.createElement("span");
      moved.className = "moved";
      moved.textContent = before ? `was ${before}` : "new";
      $("footer", item).insertBefore(moved, $(".votes", item));
    });
  }
  const counts = columns.map((column) => `${column.engine}: ${column.hits.length} results`);
  say(faults.length ? `Not answered: ${faults.join("; ")}` : counts.join(" · "));
}

const voted = (doc_id) => `${query}\t${doc_id}`;

function press(item, doc_id) {
  for (const button of item.querySelectorAll(".vote")) {
    button.setAttribute("aria-pressed", String(votes.get(voted(doc_id)) === Number(button.dataset.grade)));
  }
}

async function vote(column, hit, wanted) {
  const grade = votes.get(voted(hit.doc_id)) === wanted ? -1 : wanted;  // the same again takes it back
  try {
    const {judged} = await ask("/judgements", {query, doc_id: hit.doc_id, grade, engine: column.engine});
    votes.set(voted(hit.doc_id), grade);
    for (const each of columns) {
      each.hits.forEach((other, at) => press($(".hits", each.root).children[at], other.doc_id));
    }
    say(`${grade < 0 ? "Vote taken back" : "Vote written down"}; ${judged} in all`);
  } catch (error) {
    say(`The vote was not written down: ${error.message}`);
  }
}

function focused() {
  const article = document.activeElement?.closest?.(".hit article");
  if (!article) return null;
  const column = columns.find((each) => each.root.contains(article));
  const at = [...$(".hits", column.root).children].indexOf(article.parentElement);
  return {column, at, article, hit: column.hits[at]};
}

function go(column, at) {
  const item = column && $(".hits", column.root).children[Math.max(0, Math.min(at, column.hits.length - 1))];
  if (!item) return;
  const article = $("article", item);
  article.focus();
  article.scrollIntoView({block: "nearest"});
}

const KEYS = {
  j: (here) => go(here?.column ?? columns.find((each) => each.hits.length), here ? here.at + 1 : 0),
  k: (here) => here && go(here.column, here.at - 1),
  ArrowLeft: (here) => here && go(columns[0], here.at),
  ArrowRight: (here) => here && go(columns.at(-1), here.at),
  Enter: (here) => here?.article.parentElement.classList.toggle("open"),
  1: (here) => here && vote(here.column, here.hit, 1),
  0: (here) => here && vote(here.column, here.hit, 0),
  "/": () => { $("#query").focus(); $("#query").select(); },
};
KEYS.ArrowDown = KEYS.j;
KEYS.ArrowUp = KEYS.k;

document.addEventListener("keydown", (event) => {
  const inField = event.target.matches?.("input, select, button, dialog *");
  if (event.key === "Escape" && event.target.id === "query") { event.target.blur(); return; }
  if (event.target.id === "query" && event.key === "ArrowDown") { event.preventDefault(); KEYS.j(null); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || (inField && !(event.target.matches("button.vote") && "jk10/".includes(event.key)))) return;
  const act = KEYS[event.key], here = focused();
  if (!act || (!here && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  act(here);
});

// The address keeps what was asked, so that a search can be sent to somebody and found again.
function remember() {
  const place = new URLSearchParams({q: query, left: columns[0].engine, right: columns.at(-1).engine});
  history.replaceState(null, "", `#${place}`);
}

async function begin() {
  const asked = new URLSearchParams(location.hash.slice(1));
  try {
    const about = await ask("/search/engines");
    $("#collection").textContent = `${about.collection} · ${about.documents.toLocaleString()} documents`;
    document.title = `Search ${about.collection}`;
    const engines = about.engines;
    const other = engines.includes("bm25") ? "bm25" : engines.at(-1);
    [["left", other], ["right", engines[0]]].slice(engines.length > 1 ? 0 : 1).forEach(([side, name], number) => {
      addColumn(engines, engines.includes(asked.get(side)) ? asked.get(side) : name, number);
    });
    addFilters(about.fields);
  } catch (error) {
    say(`Not ready: ${error.message}`);
    return;
  }
  $("#search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("#query").value = asked.get("q") ?? "";
  $("#query").focus();
  search();
}

begin();
