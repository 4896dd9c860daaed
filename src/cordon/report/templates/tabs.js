// One part of the page at a time, as tabs. Without scripts, and in print, all parts stand one below another.
const links = [...document.querySelectorAll("nav a")];
const parts = links.map((link) => document.querySelector(link.hash));

// Draw a part's figures in place of their static twins once the part is shown: before, it has no width.
// Expressions are interpreted (ast): the page needs no eval.
function draw(part) {
  for (const box of part.querySelectorAll("[data-figure]:not([data-drawn])")) {
    box.dataset.drawn = "";
    const spec = JSON.parse(document.getElementById("spec-" + box.dataset.figure).textContent);
    const live = box.querySelector(".live");
    const tooltip = { disableDefaultStyle: true };
    vegaEmbed(live, spec, { renderer: "svg", actions: false, ast: true, tooltip }).then(
      () => box.classList.add("is-live"),
      () => live.remove(),
    );
  }
}

function show(place) {
  links.forEach((link, index) => {
    const here = index === place;
    link.setAttribute("aria-selected", here);
    link.tabIndex = here ? 0 : -1;
    parts[index].hidden = !here;
  });
  links[place].scrollIntoView({ block: "nearest", inline: "nearest" });
  draw(parts[place]);
}

// The part that the address names, or holds what it names; otherwise the first.
function follow() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const place = parts.findIndex((part) => target && part.contains(target));
  show(Math.max(place, 0));
  if (place >= 0 && target !== parts[place]) target.scrollIntoView();
}

document.querySelector("nav ol").setAttribute("role", "tablist");
document.documentElement.classList.add("tabbed");
links.forEach((link, index) => {
  const part = parts[index];
  link.parentElement.setAttribute("role", "presentation");
  link.setAttribute("role", "tab");
  link.id = "tab-" + part.id;
  link.setAttribute("aria-controls", part.id);
  part.setAttribute("role", "tabpanel");
  part.setAttribute("aria-labelledby", link.id);
  part.removeAttribute("aria-label");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState(null, "", link.hash);
    show(index);
    scrollTo(0, 0);
  });
  link.addEventListener("keydown", (event) => {
    const last = links.length - 1;
    const steps = {
      ArrowRight: index === last ? 0 : index + 1,
      ArrowLeft: index === 0 ? last : index - 1,
      Home: 0,
      End: last,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = links[steps[event.key]];
    next.click();
    next.focus();
  });
});
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
follow();
