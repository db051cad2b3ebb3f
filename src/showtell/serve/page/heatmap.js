// Draws the attention weights of a word, such as 8 x 8, as colours over the photo.
//
// The model sees a square: the whole photo squashed, or the middle of it. The canvas is that square; stretching it over the
// part of the photo that the model sees (card.js) undoes the squashing. showtell/runtime/explain.py draws the same.

const BLUR = 0.55; // standard deviation of the blur, in fields of the grid
// Weight as a share of the largest, then red, green, blue and opacity: dark for low weights, clear for high ones.
const RAMP = [
  [0, [16, 10, 40, 0.82]],
  [0.35, [70, 24, 90, 0.62]],
  [0.7, [240, 130, 60, 0.2]],
  [1, [255, 230, 140, 0.04]],
];

/** Draws `map`, a square of weights, smoothly on the canvas; clears it without a map. */
export function draw(canvas, map) {
  const pen = canvas.getContext("2d");
  const size = canvas.width;
  pen.clearRect(0, 0, size, size);
  if (!map) return;
  const blur = kernel(size, map.length);
  const weights = new Float32Array(size * size);
  for (let y = 0; y < size; y++) {
    const row = map[0].map((_, column) => dot(blur[y], map.map((weights) => weights[column])));
    for (let x = 0; x < size; x++) weights[y * size + x] = dot(blur[x], row);
  }
  const largest = weights.reduce((a, b) => Math.max(a, b));
  const pixels = new ImageData(size, size);
  weights.forEach((weight, index) => pixels.data.set(colour(weight / largest), 4 * index));
  pen.putImageData(pixels, 0, 0);
}

/** Describes the place of the largest weight, for people who do not see the colours. */
export function describe(map) {
  const weights = map.flat();
  const largest = weights.indexOf(Math.max(...weights));
  const third = (field) => Math.floor(((field + 0.5) / map.length) * 3);
  const row = ["top", "", "bottom"][third(Math.floor(largest / map.length))];
  const column = ["left", "", "right"][third(largest % map.length)];
  return `looked most at the ${[row, column].filter(Boolean).join(" ") || "middle"}`;
}

/** The weights of the fields at each of `size` places along one side: a Gaussian that sums to 1, (size, fields). */
function kernel(size, fields) {
  return Array.from({ length: size }, (_, place) => {
    const centre = ((place + 0.5) / size) * fields - 0.5;
    const parts = Array.from({ length: fields }, (_, field) => Math.exp(-(((field - centre) / BLUR) ** 2) / 2));
    const sum = parts.reduce((a, b) => a + b);
    return parts.map((part) => part / sum);
  });
}

const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

function colour(value) {
  const next = Math.max(1, RAMP.findIndex(([stop]) => value <= stop));
  const [[low, from], [high, to]] = [RAMP[next - 1], RAMP[next]];
  const [red, green, blue, alpha] = from.map((part, index) => part + ((value - low) / (high - low)) * (to[index] - part));
  return [red, green, blue, 255 * alpha];
}
