// The little that the desk's own pages need; every page works without it.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(document.querySelector(button.dataset.copy), button));
  }
  for (const box of document.querySelectorAll("[data-tabs]")) tabs(box);
  customExpiry();
  offeredCapabilities();
  submitOnce();
});

// The clipboard is there on HTTPS and on localhost; elsewhere the text is selected and copied the old way.
async function copy(source, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    done = document.execCommand("copy");
  }
  const label = button.textContent;
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = label; }, 1800);
}

function tabs(box) {
  const all = [...box.querySelectorAll("[role=tab]")];
  for (const tab of all) {
    tab.addEventListener("click", () => {
      for (const other of all) {
        other.setAttribute("aria-selected", String(other === tab));
        document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
      }
    });
  }
}

// The date is asked for only where "at a date and time" was chosen.
function customExpiry() {
  const choice = document.querySelector("select[name=expiry]");
  const date = document.querySelector("[data-field=expires_at]");
  if (!choice || !date) return;
  const show = () => { date.hidden = choice.value !== "custom"; };
  choice.addEventListener("change", show);
  show();
}

// What the chosen key's provider does not offer cannot be ticked. (The server checks it anyway.)
function offeredCapabilities() {
  const data = document.getElementById("ap-offers");
  const key = document.querySelector("select[name=provider_key]");
  if (!data || !key) return;
  const offers = JSON.parse(data.textContent);
  const show = () => {
    for (const box of document.querySelectorAll("input[name=capabilities]")) {
      const offered = (offers[key.value] || []).includes(box.value);
      box.disabled = !offered;
      if (!offered) box.checked = false;
      box.closest("label").classList.toggle("ap-off", !offered);
    }
  };
  key.addEventListener("change", show);
  show();
}

// A second click does not issue a second token.
function submitOnce() {
  for (const form of document.querySelectorAll("form[method=post].ap-page, .ap-page form[method=post]")) {
    form.addEventListener("submit", () => {
      setTimeout(() => form.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = true; }));
    });
  }
  // back from the next page: the form is usable again
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) document.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = false; });
  });
}
