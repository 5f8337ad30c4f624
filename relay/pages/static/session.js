/* Leaves the page when its session is over, so that an unattended screen shows no patient, and tells while somebody
   works here without asking for anything: reading images, filling in a form. Pages that nobody signed in for do nothing. */
"use strict";
(() => {
  const LOOK = 15000; // milliseconds between two questions
  let used = false;
  for (const name of ["pointerdown", "pointermove", "keydown", "wheel"]) {
    addEventListener(name, () => (used = true), { capture: true, passive: true });
  }

  async function look() {
    const method = used ? "POST" : "GET";
    used = false;
    const answer = await fetch("/session", { method, cache: "no-store" }).catch(() => null); // away: app.js says so
    if (answer?.status === 401) location.replace(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }

  setInterval(look, LOOK);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  addEventListener("pageshow", (event) => event.persisted && look()); // brought back by the browser's Back
})();
