// A page of states that were drawn beforehand: each view looks up its own by the dials' places.

unpack().then((data) => {
  let controls = [];
  const boxes = data.views.map(view);
  const draw = (each, i) => {
    const number = each.states[each.dials.map((dial) => Number(controls[dial].value)).join()];
    if (boxes[i].dataset.number === String(number)) return;
    boxes[i].dataset.number = number;
    boxes[i].innerHTML = data.drawn[number];
  };
  const show = () => {
    // a style may follow a dial, too: --dial-3 is the place of the fourth
    controls.forEach((control, i) => document.body.style.setProperty(`--dial-${i}`, control.value));
    data.views.forEach(draw);
  };
  controls = data.dials.map((dial) => dial.slides
    ? slider(dial.label, 0, dial.places.length - 1, 1, dial.start, (i) => dial.places[i], show)
    : menu(dial.label, dial.places, dial.start, show));
  show();
});
