// Keeps the pages live: listens to the server's events, fetches the parts that changed, puts them in.
"use strict";

const byId = (id) => document.getElementById(id);
const PAUSE = 700; // ms between two fetches: a fleet that images must not turn a browser into load

// ---- How long ago -------------------------------------------------------------------------------

function ago(seconds) {
  if (seconds < 120) return Math.max(0, Math.floor(seconds)) + "s";
  if (seconds < 7200) return Math.floor(seconds / 60) + "m";
  if (seconds < 172800) return Math.floor(seconds / 3600) + "h";
  return Math.floor(seconds / 86400) + "d";
}

// The server's clock counts, not the browser's: the offset is learned from its answers.
let skew = 0;
function tick() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.textContent = ago((Date.now() - skew - Date.parse(time.dateTime)) / 1000);
  }
}
function learnSkew(response) {
  const apart = Date.now() - Date.parse(response.headers.get("date") || "");
  if (!Number.isNaN(apart)) skew = Math.abs(apart) > 5000 ? apart : 0;
}

async function part(url) {
  const response = await fetch(url, { headers: { accept: "text/html" }, redirect: "manual" });
  if (response.type === "opaqueredirect" || response.status === 401) {
    location.assign("/login");
    throw new Error("signed out");
  }
  learnSkew(response);
  if (!response.ok) throw new Error(response.status);
  const total = response.headers.get("x-total");
  if (total !== null && byId("total")) byId("total").textContent = total;
  return response.text();
}

// Runs `work` soon, never twice at once, and once more if it was asked for meanwhile.
function paced(work, pause = PAUSE) {
  let timer = null, running = false, again = false;
  const go = async () => {
    timer = null;
    running = true;
    try { await work(); } catch (error) { console.debug(error); }
    running = false;
    if (again) { again = false; ask(); }
  };
  const ask = () => {
    if (running) again = true;
    else if (timer === null) timer = setTimeout(go, pause);
  };
  return ask;
}

// ---- The list of machines -----------------------------------------------------------------------

// The server searches and pages; here are the rows of one page, and what changes in them.
function list(rows) {
  const q = byId("q"), phase = byId("phase"), FIRST = 100, MOST = 500, PARTS = 100;
  let start = rows.dataset.after; // the page begins after this machine
  const shown = () => [...rows.children].filter((row) => row.id !== "more");
  const query = (rest = {}) => {
    const all = Object.entries({ q: q.value, phase: phase.value, ...rest }).filter(([, value]) => value);
    return new URLSearchParams(all).toString();
  };
  // Fetches some rows; what comes after somebody has typed on is of no use any more.
  const fetchRows = async (rest) => {
    const asked = query();
    const html = await part("/fragments/machines?" + query(rest));
    if (asked !== query()) return null;
    const fresh = document.createElement("tbody");
    fresh.innerHTML = html;
    return [...fresh.children];
  };
  // What is ticked stays ticked when its row is drawn anew.
  const pick = byId("pick");
  const ticked = () => [...rows.querySelectorAll("input[name=machine]:checked")];
  const count = () => {
    const n = ticked().length;
    pick.hidden = n === 0;
    byId("picked").textContent = n === 1 ? "1 machine ticked" : n + " machines ticked";
  };
  rows.addEventListener("change", count);
  const settle = () => {
    count();
    const total = Number(byId("total").textContent), none = shown().length === 0;
    byId("none").hidden = !none || total === 0;
    byId("empty").hidden = total > 0;
    byId("table").hidden = total === 0;
    tick();
  };

  const whole = async () => {
    const fresh = await fetchRows({ continue: start, limit: Math.min(MOST, Math.max(FIRST, shown().length)) });
    const names = new Set(ticked().map((box) => box.value));
    if (fresh) {
      rows.replaceChildren(...fresh);
      for (const box of rows.querySelectorAll("input[name=machine]")) box.checked = names.has(box.value);
    }
    settle();
  };
  const search = paced(whole, 200);
  const anew = () => {
    start = "";
    byId("begin")?.remove();
    const words = query();
    history.replaceState(null, "", words ? "?" + words : location.pathname);
    search();
  };
  byId("filter").addEventListener("submit", (e) => e.preventDefault());
  q.addEventListener("input", anew);
  phase.addEventListener("change", anew);
  byId("clear").addEventListener("click", (e) => { e.preventDefault(); q.value = ""; phase.value = ""; anew(); q.focus(); });
  rows.addEventListener("click", async (e) => {
    const more = e.target.closest("#more");
    if (!more || !e.target.closest("a")) return;
    e.preventDefault();
    const fresh = await fetchRows({ continue: more.dataset.after }).catch((error) => console.debug(error));
    if (!fresh) return;
    more.replaceWith(...fresh);
    fresh[0]?.querySelector("a")?.focus();
    settle();
  });

  // Whether a machine stands on this page, or would if it matched.
  const here = (name) => name > start && (!byId("more") || name <= (shown().at(-1)?.dataset.name ?? ""));
  const put = (row) => {
    const old = byId(row.id);
    if (old) {
      const at = old.contains(document.activeElement) ? document.activeElement.tagName : null;
      const box = row.querySelector("input");
      if (box) box.checked = old.querySelector("input")?.checked ?? false;
      old.replaceWith(row);
      if (at) (row.querySelector(at) ?? row.querySelector("a"))?.focus();
    } else if (here(row.dataset.name)) {
      rows.insertBefore(row, [...rows.children].find((r) => r.id === "more" || r.dataset.name > row.dataset.name) || null);
    }
  };
  const changed = new Set();
  let all = false;
  const refresh = paced(async () => {
    if (all) {
      all = false;
      changed.clear();
      return whole();
    }
    const names = [...changed].slice(0, PARTS);
    names.forEach((name) => changed.delete(name));
    if (changed.size) refresh();
    if (!names.length) return;
    const fresh = await fetchRows({ names: names.join(",") });
    if (!fresh) return;
    const fits = new Set(fresh.map((row) => row.dataset.name));
    names.filter((name) => !fits.has(name)).forEach((name) => byId("m-" + name)?.remove());
    fresh.forEach(put);
    settle();
  });
  const look = paced(async () => {
    byId("sightings").innerHTML = await part("/fragments/sightings");
    tick();
  });
  count();
  return (event) => {
    if (event === null) all = true;
    else if (!event.machine) return;
    // Those that come and go are counted, wherever they stand.
    else if (here(event.machine) || /^(object|machine\.registered)/.test(event.type)) changed.add(event.machine);
    // A machine without a row may be one that boots and has not reported, or has just done so.
    if (event === null || !byId("m-" + event.machine) && (event.data?.mac || event.type === "machine.registered")) look();
    if (all || changed.size) refresh();
  };
}

// ---- One machine --------------------------------------------------------------------------------

function machine(live) {
  const name = live.dataset.name, log = byId("log");
  const busy = () => {
    const at = document.activeElement;
    const verbs = byId("verbs");
    return verbs.contains(at) && at.matches("input, select, textarea") || [...verbs.querySelectorAll("input:not([type=hidden]), textarea")].some((i) => i.type === "checkbox" ? i.checked : i.value !== "");
  };
  const refresh = paced(async () => {
    const html = await part("/fragments/machines/" + encodeURIComponent(name));
    const scrolled = live.querySelector(".timeline")?.scrollTop || 0;
    live.innerHTML = html;
    const timeline = live.querySelector(".timeline");
    if (timeline) timeline.scrollTop = scrolled;
    tick();
    const phase = live.querySelector(".phase.big")?.textContent;
    const verbs = byId("verbs");
    // What can be done depends on the phase; a form that somebody fills in is left alone.
    if (phase && phase !== verbs.dataset.phase && !busy()) {
      const page = new DOMParser().parseFromString(await part(location.pathname), "text/html");
      for (const id of ["verbs", "hardware"]) {
        const fresh = page.getElementById(id)?.closest("section"), old = byId(id)?.closest("section");
        if (fresh && old) old.replaceWith(fresh);
      }
    }
  });
  const readLog = async () => {
    if (document.hidden) return;
    try {
      const response = await fetch("/dragonfly/v1/machines/" + encodeURIComponent(name) + "/log");
      const text = response.ok ? await response.text() : "";
      if (!text || text === log.textContent) return;
      refresh(); // its lines are on the timeline too
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.textContent = text;
      if (atEnd) log.scrollTop = log.scrollHeight;
    } catch (error) { console.debug(error); }
  };
  // What its controller knows is asked when somebody wants to see it; a controller takes its time.
  document.addEventListener("click", async (e) => {
    const link = e.target.closest("a[data-ask]"), said = byId("said");
    if (!link || !said || e.metaKey || e.ctrlKey) return;
    e.preventDefault();
    said.textContent = "Asking its controller...";
    link.setAttribute("aria-current", "true");
    document.querySelectorAll("a[data-ask]").forEach((other) => { if (other !== link) other.removeAttribute("aria-current"); });
    let html;
    try { html = await part("/fragments" + link.getAttribute("href")); } catch (error) {
      console.debug(error);
      said.textContent = "The server did not answer. Try again.";
      return;
    }
    // Somebody may have asked for something else meanwhile.
    if (link.getAttribute("aria-current")) said.innerHTML = html;
  });
  log.scrollTop = log.scrollHeight;
  setInterval(readLog, 2000);
  return (event) => { if (event === null || event.machine === name) refresh(); };
}

// ---- A card that has asked and not reported -----------------------------------------------------

function unseen(live) {
  const { name, mac } = live.dataset;
  const refresh = paced(async () => {
    live.innerHTML = await part("/fragments/timelines/" + encodeURIComponent(mac));
    tick();
  });
  return (event) => {
    // Now it is a machine, with a page of its own.
    if (event && event.machine === name && event.type === "machine.registered") location.assign("/machines/" + encodeURIComponent(name));
    else if (event === null || event.machine === name) refresh();
  };
}

// ---- Events -------------------------------------------------------------------------------------

function listen(told) {
  const connection = byId("connection");
  let opened = false;
  const source = new EventSource("/dragonfly/v1/events");
  source.onopen = () => {
    connection.textContent = "live";
    connection.classList.remove("lost");
    if (opened) told(null); // whatever was missed while the line was down
    opened = true;
  };
  source.onerror = () => {
    connection.textContent = "connection lost, trying again";
    connection.classList.add("lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(told), 3000);
  };
  source.addEventListener("gap", () => told(null));
  source.onmessage = (message) => { try { told(JSON.parse(message.data)); } catch (error) { console.debug(error); } };
}

document.addEventListener("submit", (e) => {
  const question = e.target.dataset.confirm;
  if (question && !confirm(question)) e.preventDefault();
});

const live = document.querySelector("[data-live]");
if (live) {
  const told = { machines: list, machine, unseen }[live.dataset.live](live);
  listen(told);
  tick();
  setInterval(tick, 1000);
}
