// Where the model looked for a word: its 7 x 7 attention weights as colours over the photo.
//
// The model sees every photo squashed to a square. The canvas is that square; stretching it over the photo (page.css) undoes the
// squashing, so that the grid covers the photo evenly whatever its shape.

const GRID = 7;
// Weight, as a part of the largest: red, green, blue, opacity. Dark where the model did not look, clear where it did.
const RAMP = [
  [0, [22, 11, 57, 0.74]],
  [0.35, [120, 28, 109, 0.6]],
  [0.7, [237, 105, 37, 0.42]],
  [1, [252, 210, 80, 0.3]],
];

/** Draws `map`, 7 rows of 7 weights, smoothly on the canvas; without a map, clears it. */
export function draw(canvas, map) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!map) return;
  const pixels = new ImageData(canvas.width, canvas.height);
  const highest = Math.max(...map.flat());
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const weight = sample(map, ((x + 0.5) / canvas.width) * GRID - 0.5, ((y + 0.5) / canvas.height) * GRID - 0.5);
      pixels.data.set(colour(Math.min(weight / highest, 1)), 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(pixels, 0, 0);
}

/** Says where in the photo the largest weight lies, for those who do not see the colours. */
export function describe(map) {
  const weights = map.flat();
  const largest = weights.indexOf(Math.max(...weights));
  const third = (field) => Math.floor(((field + 0.5) / GRID) * 3);
  const row = ["top", "", "bottom"][third(Math.floor(largest / GRID))];
  const column = ["left", "", "right"][third(largest % GRID)];
  return `looked most at the ${[row, column].filter(Boolean).join(" ") || "middle"}`;
}

/** The weight between four fields; smoothstep, so that fields melt into each other without creases. */
function sample(map, x, y) {
  const inside = (value) => Math.min(Math.max(value, 0), GRID - 1);
  const [x0, y0] = [Math.floor(inside(x)), Math.floor(inside(y))];
  const [x1, y1] = [inside(x0 + 1), inside(y0 + 1)];
  const [u, v] = [smooth(inside(x) - x0), smooth(inside(y) - y0)];
  return (1 - v) * ((1 - u) * map[y0][x0] + u * map[y0][x1]) + v * ((1 - u) * map[y1][x0] + u * map[y1][x1]);
}

const smooth = (t) => t * t * (3 - 2 * t);

function colour(value) {
  const next = Math.max(1, RAMP.findIndex(([stop]) => value <= stop));
  const [[low, from], [high, to]] = [RAMP[next - 1], RAMP[next]];
  const t = (value - low) / (high - low);
  const [red, green, blue, alpha] = from.map((part, i) => part + t * (to[i] - part));
  return [red, green, blue, 255 * alpha];
}
