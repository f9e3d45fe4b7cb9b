// The page: three views, one list of jobs that all of them watch.

import { get } from "./api.js";
import { h, t } from "./dom.js";
import { Batch } from "./batch.js";
import { Files } from "./files.js";
import { Jobs, List, OVER } from "./jobs.js";
import { Make } from "./make.js";

const VIEWS = ["make", "batch", "videos"];

function showView() {
  const wanted = location.hash.slice(1);
  const name = VIEWS.includes(wanted) ? wanted : "make";
  for (const view of VIEWS) document.getElementById(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav [data-view]"))
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  document.title = `${t(`nav.${name}`)} · heygemd`;
}

function watchQueue(jobs) {
  const banner = document.getElementById("banner");
  const count = document.getElementById("count");
  jobs.addEventListener("asked", () => {
    const { running, paused } = jobs.queue;
    const key = running === false ? "stopped" : paused;
    const words = jobs.problem?.message ?? (key ? t(`banner.${key}`) : "");
    banner.hidden = !words;
    if (banner.firstChild?.textContent !== words) {
      // What was typed is lost by loading: people choose when.
      const over = jobs.problem?.status === 401;
      const again = over && h("button.button.small", { type: "button", onclick: () => location.reload() }, t("banner.load"));
      banner.replaceChildren(...[h("span", {}, words), again].filter(Boolean));
    }
    const active = jobs.list.filter((job) => !OVER.includes(job.state)).length;
    count.hidden = active === 0;
    count.textContent = String(active);
  });
}

function themeButton() {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("heygemd-theme", root.dataset.theme);
  });
}

async function begin() {
  themeButton();
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // its #main is no view
    document.getElementById("main").focus();
  });
  // With a base element a bare #view would lead to the base's address; this page's own is meant.
  for (const link of document.querySelectorAll('a[href^="#"]')) link.href = location.pathname + location.search + link.getAttribute("href");
  const me = await get("api/me");
  const jobs = new Jobs();
  const make = new Make(me, jobs);
  const views = { make, batch: new Batch(me, jobs), videos: new List(jobs) };
  for (const view of VIEWS) document.getElementById(view).replaceChildren(views[view].element);
  document.getElementById("videos").append(new Files(me).element);
  watchQueue(jobs);
  addEventListener("hashchange", () => {
    showView();
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
  });
  // A file that misses its zone must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  showView();
  jobs.soon();
  document.body.dataset.ready = "";
  make.offer(await get("api/uploads"));
}

begin().catch((error) => {
  document.getElementById("main").replaceChildren(h("article.card", {}, h("h1", {}, t("message.title")), h("p", {}, error.message)));
});
