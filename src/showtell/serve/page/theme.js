// The dark or light theme: the system's, unless the user chose one by the button.

const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const key = "showtell-theme";

function show() {
  const chosen = localStorage.getItem(key);
  if (chosen) document.documentElement.dataset.theme = chosen;
  button.setAttribute("aria-pressed", String(chosen ? chosen === "dark" : system.matches));
}

button.addEventListener("click", () => {
  localStorage.setItem(key, button.getAttribute("aria-pressed") === "true" ? "light" : "dark");
  show();
});
system.addEventListener("change", show);
show();
