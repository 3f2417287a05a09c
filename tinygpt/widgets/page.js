// What the pages share: their packed data, and dials with a label and a value.

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent.trim()),
    (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function labelled(text, control) {
  const label = document.createElement("label"), name = document.createElement("span");
  name.textContent = text;
  label.append(name, control);
  document.querySelector(".dials").append(label);
  return label;
}

// A slider from low to high; `say` makes a text of its value.
function slider(text, low, high, step, value, say, changed) {
  const input = document.createElement("input"), output = document.createElement("output");
  Object.assign(input, { type: "range", min: low, max: high, step: step, value: value });
  const tell = () => {
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => { tell(); changed(); });
  labelled(text, input).append(output);
  tell();
  return input;
}

function menu(text, places, start, changed) {
  const select = document.createElement("select");
  places.forEach((place, i) => select.add(new Option(place, i, i === start, i === start)));
  select.addEventListener("change", changed);
  labelled(text, select);
  return select;
}

function view() {
  const box = document.createElement("div");
  document.querySelector(".views").append(box);
  return box;
}

function escaped(text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
