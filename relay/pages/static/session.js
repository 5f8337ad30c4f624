/* Leaves the page when its session is over, so that an unattended screen shows no patient, and extends the session while
   mouse or keyboard are used without any request, as for reading images or filling in a form. Without a
   session (open access, Basic) no answer is 401, and nothing happens. */
"use strict";
(() => {
  const LOOK = 15000; // milliseconds between two requests
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
