/* Keeps an open page up to date. The server says that something has changed (/events); then the page is requested again
   and its differences are applied in place, so that focus, scroll position, open details and half-filled fields stay.
   A page without a message for 25 seconds says so, and fades. Without this script every page works as loaded. */
"use strict";
(() => {
  const SILENT = 25000, AGAIN = 5000, PAUSE = 1000; // milliseconds
  const body = document.body, follows = (body.dataset.follows || "").split(" ").filter(Boolean);
  const banner = document.getElementById("stale"), live = document.getElementById("live");
  let state = JSON.parse(body.dataset.state || "{}"), ahead = Date.parse(body.dataset.now) - Date.now();
  let source, asOf = "", heard = Date.now(), failed = "", asking = false, wanted = false, paused = false;

  // --- changing in place

  const key = (node) => (node.nodeType === Node.ELEMENT_NODE && (node.dataset.key || node.id)) || "";
  const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

  function morph(old, fresh) {
    if (old.isEqualNode(fresh) || /^(INPUT|SELECT|TEXTAREA)$/.test(old.nodeName)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const names = new Set([...old.attributes, ...fresh.attributes].map((each) => each.name));
    if (old.nodeName === "DETAILS") names.delete("open");
    for (const name of names) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
      else if (old.getAttribute(name) !== fresh.getAttribute(name)) old.setAttribute(name, fresh.getAttribute(name));
    }
    morphChildren(old, fresh);
  }

  function morphChildren(old, fresh) {
    const staying = new Set([...fresh.children].map(key));
    for (const child of [...old.children]) if (key(child) && !staying.has(key(child))) child.remove();
    const keyed = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    let at = old.firstChild;
    for (const want of [...fresh.childNodes]) {
      let found = key(want) ? keyed.get(key(want)) : at && !key(at) && alike(at, want) ? at : null;
      if (found && !alike(found, want)) found = null;
      if (!found) old.insertBefore(document.importNode(want, true), at);
      else {
        if (found === at) at = at.nextSibling;
        else old.insertBefore(found, at);
        morph(found, want);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  // --- requesting the page again

  async function refresh() {
    wanted = true;
    if (asking) return;
    asking = true;
    while (wanted && !paused) {
      wanted = false;
      failed = await renewed().catch(() => "The gateway does not answer. ");
      show();
      await new Promise((done) => setTimeout(done, failed ? AGAIN : PAUSE));
      wanted = wanted || Boolean(failed);
    }
    asking = false;
  }

  /** Request this page and apply the differences; returns the error as a sentence, or "". Without Accept: text/html, because
      a page load would extend the session. */
  async function renewed() {
    const options = { cache: "no-store", signal: AbortSignal.timeout(20000) };
    const answer = await fetch(location.href, options);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok || !page.body.dataset.state) return `The gateway cannot show this page now (status ${answer.status}). `;
    if (paused) return "";
    state = JSON.parse(page.body.dataset.state);
    ahead = Date.parse(page.body.dataset.now) - Date.now();
    document.title = page.title;
    for (const fresh of page.querySelectorAll("[data-live]")) {
      const old = document.querySelector(`[data-live="${fresh.dataset.live}"]`);
      if (old) morph(old, fresh);
    }
    return "";
  }

  // --- listening

  function listen() {
    source?.close();
    if (paused || (document.hidden && !body.classList.contains("wall"))) return; // browsers have six connections per server
    source = new EventSource("/events");
    source.addEventListener("state", (event) => {
      const news = JSON.parse(event.data);
      [heard, asOf] = [Date.now(), news.at];
      if (follows.some((part) => state[part] !== news.state[part])) refresh();
      show();
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN); // else the browser tries by itself
    };
  }

  function show() {
    const silent = Date.now() - heard > SILENT;
    const why = failed || (silent ? `No word from the gateway for ${SILENT / 1000} seconds. ` : "");
    const stale = Boolean(why) && !paused;
    const said = why + `What you see is old${asOf ? `: it is as of ${asOf}` : ""}. Trying again.`;
    if (stale && banner.textContent !== said) banner.textContent = said;
    banner.hidden = !stale;
    body.classList.toggle("is-stale", stale);
    if (live) document.getElementById("live-said").textContent = paused ? `Paused at ${asOf}` : stale ? "Not live" : "Live";
  }

  // --- ages

  function ages() {
    for (const element of document.querySelectorAll("time[data-age]")) {
      const seconds = Math.max(0, Math.floor((Date.now() + ahead - Date.parse(element.dateTime)) / 1000));
      const [unit, length] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find((each) => seconds >= each[1]) || ["", 1];
      const count = Math.floor(seconds / length);
      const words = seconds < 2 ? "just now" : `${count} ${unit}${count === 1 ? "" : "s"} ago`;
      if (element.textContent !== words) element.textContent = words;
    }
  }

  setInterval(ages, 1000);
  if ("again" in body.dataset) {
    setInterval(() => fetch(location.href, { method: "HEAD" }).then((answer) => answer.ok && location.reload(), () => {}), 2 * AGAIN);
  }
  if (!follows.length) return;
  setInterval(show, 1000);
  document.addEventListener("visibilitychange", () => {
    heard = Math.max(heard, Date.now() - SILENT + 3000); // a page that is visible again has three seconds for a message
    listen();
  });
  if (live) {
    const button = document.getElementById("live-pause");
    live.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      heard = Date.now();
      listen();
      show();
    });
  }
  listen();
})();
