// The mask that a visitor paints over the first picture. Gradio's events call `show` and `drawn`.
window.i2iMask = (() => {
  let brush = 40, last = null, address = "", isEmpty = true;
  const part = (name) => document.querySelector(`#mask ${name}`);

  function paint(event) {
    const canvas = event.target, box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    const here = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const ink = canvas.getContext("2d");
    ink.strokeStyle = "#14b8a6";
    ink.lineWidth = brush * scale;
    ink.lineCap = "round";
    ink.beginPath();
    ink.moveTo(...(last ?? here));
    ink.lineTo(...here);
    ink.stroke();
    last = here;
    isEmpty = false;
    event.preventDefault();
  }

  function clear() {
    const canvas = part("canvas");
    if (canvas) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    isEmpty = true;
  }

  const on = (kind, name, act) =>
    document.addEventListener(kind, (event) => event.target === part(name) && act(event));
  on("pointerdown", "canvas", (event) => { last = null; paint(event); });
  on("pointermove", "canvas", (event) => event.buttons & 1 && paint(event));
  on("pointerout", "canvas", () => { last = null; });
  on("input", "input[type=range]", (event) => { brush = +event.target.value; });
  on("click", ".tools button", clear);

  // Gradio draws what is folded away when it is unfolded
  document.addEventListener("click", () => setTimeout(draw, 100));

  function draw() {
    const canvas = part("canvas"), paper = part(".paper");
    if (!canvas || paper.dataset.address === address) return;
    paper.dataset.address = address;
    paper.style.display = address ? "block" : "none";
    if (!address) return;
    const picture = new Image();
    picture.onload = () => {
      canvas.width = picture.naturalWidth;
      canvas.height = picture.naturalHeight;
      paper.style.backgroundImage = `url("${picture.src}")`;
    };
    picture.src = "." + address;
  }

  function show(given) {
    address = given ?? "";
    clear();
    draw();
  }

  return { show, drawn: () => (isEmpty || !part("canvas") ? "" : part("canvas").toDataURL("image/png")) };
})();
