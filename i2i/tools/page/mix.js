// The shares of a mix of the chosen styles. Gradio's events call `weights`.
window.i2iMix = (() => {
  const values = {}; // by the names of styles, 0 to 100
  const part = (name) => document.querySelector(`#mix ${name}`);
  const chosen = () => [...document.querySelectorAll("#styles label:has(input:checked)")].map((label) => label.innerText.trim());
  const isOn = () => chosen().length > 1 && part("input[type=checkbox]").checked;

  function draw() {
    document.querySelector("#mix").classList.toggle("offered", chosen().length > 1);
    part(".shares").replaceChildren(...(isOn() ? chosen().map(row) : []));
    if (isOn()) showShares();
  }

  function row(name) {
    const label = document.createElement("label");
    const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, value: values[name] ??= 50 });
    range.addEventListener("input", () => {
      values[name] = +range.value;
      showShares();
    });
    label.append(Object.assign(document.createElement("span"), { textContent: name }), range, document.createElement("output"));
    return label;
  }

  function showShares() {
    const total = chosen().reduce((sum, name) => sum + values[name], 0);
    const shares = chosen().map((name) => (total ? Math.round((100 * values[name]) / total) : 0));
    part(".shares").querySelectorAll("output").forEach((output, i) => { output.textContent = `${shares[i]} %`; });
  }

  document.addEventListener("change", (event) => event.target.closest?.("#styles, #mix [type=checkbox]") && setTimeout(draw));

  return { weights: () => (isOn() ? JSON.stringify(Object.fromEntries(chosen().map((name) => [name, values[name]]))) : "") };
})();
