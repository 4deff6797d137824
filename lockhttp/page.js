// Every two seconds the main part of the page is replaced by that of a new one, but not while
// a key is being typed.
const live = document.getElementById("live");
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const typing = () => {
  const field = document.querySelector("input[name=key]");
  return field && (field.value || field === document.activeElement);
};

async function refresh() {
  const reply = await fetch(location.href, {headers: {Accept: "text/html"}, signal: AbortSignal.timeout(10000)});
  const next = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
  if (!next) throw new Error("this is another page, such as that of a proxy");
  if (live.checked && !typing()) document.querySelector("main").replaceWith(next);
}

for (;;) {
  await pause(2000);
  if (!live.checked || document.hidden || typing()) continue;
  try {
    await refresh();
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}
