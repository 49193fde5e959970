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
  return response.text();
}

// Runs `work` soon, never twice at once, and once more if it was asked for meanwhile.
function paced(work) {
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
    else if (timer === null) timer = setTimeout(go, PAUSE);
  };
  return ask;
}

// ---- The list of machines -----------------------------------------------------------------------

function list(rows) {
  const q = byId("q"), phase = byId("phase");
  const apply = () => {
    const words = q.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows.children) {
      const fits = (!phase.value || row.dataset.phase === phase.value) && words.every((w) => row.dataset.text.includes(w));
      row.hidden = !fits;
      if (fits) shown++;
    }
    byId("none").hidden = shown > 0 || rows.children.length === 0;
    byId("empty").hidden = rows.children.length > 0;
    byId("table").hidden = rows.children.length === 0;
    byId("total").textContent = rows.children.length;
  };
  const remember = () => {
    const query = new URLSearchParams();
    if (q.value) query.set("q", q.value);
    if (phase.value) query.set("phase", phase.value);
    history.replaceState(null, "", query.size ? "?" + query : location.pathname);
  };
  byId("filter").addEventListener("submit", (e) => e.preventDefault());
  q.addEventListener("input", () => { apply(); remember(); });
  phase.addEventListener("change", () => { apply(); remember(); });
  byId("clear").addEventListener("click", () => { q.value = ""; phase.value = ""; apply(); remember(); q.focus(); });

  const changed = new Set();
  let all = q.value !== "" || phase.value !== ""; // a filtered first page lacks the other rows
  const put = (html) => {
    const fresh = document.createElement("tbody");
    fresh.innerHTML = html;
    for (const row of [...fresh.children]) {
      const old = byId(row.id);
      if (old) {
        if (old.contains(document.activeElement)) {
          const focus = row.querySelector("a");
          old.replaceWith(row);
          if (focus) focus.focus();
        } else old.replaceWith(row);
      } else {
        const next = [...rows.children].find((r) => r.dataset.name > row.dataset.name);
        rows.insertBefore(row, next || null);
      }
    }
    return new Set([...fresh.children].map((r) => r.id));
  };
  const refresh = paced(async () => {
    if (all || changed.size > 100) {
      all = false;
      changed.clear();
      const html = await part("/fragments/machines");
      rows.innerHTML = html;
    } else {
      const names = [...changed];
      changed.clear();
      if (!names.length) return;
      put(await part("/fragments/machines?names=" + encodeURIComponent(names.join(","))));
    }
    apply();
    tick();
  });
  const look = paced(async () => {
    byId("sightings").innerHTML = await part("/fragments/sightings");
    tick();
  });
  apply();
  if (all) refresh();
  return (event) => {
    if (event === null || event.type === "object.deleted") all = true;
    else if (event.machine) changed.add(event.machine);
    else return;
    // A machine without a row is one that boots and has not reported, or has just done so.
    if (event === null || !byId("m-" + event.machine)) look();
    refresh();
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
