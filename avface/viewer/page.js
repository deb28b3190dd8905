// Plays a capture: the head follows the clock of the video, or its own clock if there is no video.
// Axes: head y up, z out of the face; camera x right, y down, z forward; world like camera, but y up and z backward.
(() => {
'use strict';
const $ = (id) => document.getElementById(id);
const meta = JSON.parse($('capture').textContent);

function bytesOf(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
const KINDS = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i1: Int8Array, i2: Int16Array };
const data = {};
for (const [name, [kind, text]] of Object.entries(meta.arrays)) data[name] = new KINDS[kind](bytesOf(text).buffer);
$('capture').textContent = '';

const frames = data.times.length, vertices = data.neutral.length / 3;
const units = data.weightLow.length, lips = meta.lips, joints = meta.jointParents.length;
const times = data.times;
const meanInterval = frames > 1 ? (times[frames - 1] - times[0]) / (frames - 1) : 0.04;
const duration = times[frames - 1] + meanInterval;

// ---- The head ----------------------------------------------------------------------------------------------------

let lipsShown = lips > 0; // the lip refinement, whose morph targets are the last ones

function weight(frame, unit) {
  return data.weightLow[unit] + data.weights[frame * units + unit] * data.weightStep[unit];
}

function rotationMatrix(x, y, z) { // row-major matrix of an axis-angle vector (Rodrigues)
  const angle = Math.hypot(x, y, z);
  if (angle < 1e-12) return [1, 0, 0, 0, 1, 0, 0, 0, 1];
  x /= angle; y /= angle; z /= angle;
  const c = Math.cos(angle), s = Math.sin(angle), d = 1 - c;
  return [c + x * x * d, x * y * d - z * s, x * z * d + y * s,
    y * x * d + z * s, c + y * y * d, y * z * d - x * s,
    z * x * d - y * s, z * y * d + x * s, c + z * z * d];
}

function product(a, b) {
  const out = new Array(9);
  for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) {
    out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  }
  return out;
}

function transformed(m, x, y, z) {
  return [m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z];
}

function rotationOf(array, row) {
  return rotationMatrix(array[3 * row], array[3 * row + 1], array[3 * row + 2]);
}

// Rotation R and translation t of every joint in the head's frame: a point x at rest is at R x + t.
function jointTransforms(frame) {
  const rotations = [], offsets = [];
  for (let j = 0; j < joints; j++) {
    const local = rotationOf(data.joints, frame * joints + j), p = data.pivots.subarray(3 * j, 3 * j + 3);
    const rotated = transformed(local, p[0], p[1], p[2]), row = 3 * (frame * joints + j);
    const q = data.places ? data.places.subarray(row, row + 3) : p; // current position of the pivot
    const offset = [q[0] - rotated[0], q[1] - rotated[1], q[2] - rotated[2]];
    const parent = meta.jointParents[j];
    if (parent < 0) {
      rotations.push(local);
      offsets.push(offset);
    } else {
      rotations.push(product(rotations[parent], local));
      const moved = transformed(rotations[parent], offset[0], offset[1], offset[2]);
      offsets.push(moved.map((value, axis) => value + offsets[parent][axis]));
    }
  }
  return [rotations, offsets];
}

// Writes the vertices of a frame in the head's axes into `out`.
function headVertices(frame, out) {
  out.set(data.neutral);
  for (let unit = 0, last = lipsShown ? units : units - lips; unit < last; unit++) {
    const scale = weight(frame, unit) * data.deltaScale[unit];
    if (Math.abs(scale) < 1e-12) continue;
    for (let k = data.deltaStart[unit], end = data.deltaStart[unit + 1]; k < end; k++) {
      const i = 3 * data.deltaVertex[k];
      out[i] += scale * data.delta[3 * k];
      out[i + 1] += scale * data.delta[3 * k + 1];
      out[i + 2] += scale * data.delta[3 * k + 2];
    }
  }
  const [rotations, offsets] = jointTransforms(frame), columns = joints + 1, skin = data.skin;
  for (let v = 0; v < vertices; v++) {
    const x = out[3 * v], y = out[3 * v + 1], z = out[3 * v + 2], root = skin[v * columns];
    let a = root * x, b = root * y, c = root * z;
    for (let j = 0; j < joints; j++) {
      const share = skin[v * columns + j + 1]; // the joint's skinning weight
      if (share === 0) continue;
      const r = rotations[j], t = offsets[j];
      a += share * (r[0] * x + r[1] * y + r[2] * z + t[0]);
      b += share * (r[3] * x + r[4] * y + r[5] * z + t[1]);
      c += share * (r[6] * x + r[7] * y + r[8] * z + t[2]);
    }
    out[3 * v] = a; out[3 * v + 1] = b; out[3 * v + 2] = c;
  }
}

// ---- Detail: a normal map over the face's window of the UV square ------------------------------------------------

const components = meta.detailComponents; // their number, null without detail
let detailShown = components !== null, normalMap = null, normalImage = null;

function setUpDetail() { // waits until K3D has loaded the invisible picture, which provides the class of textures
  const picture = plot.getObjectById(meta.textureId), Texture = picture && picture.material && textureClass(picture.material);
  if (!Texture) { setTimeout(setUpDetail, 50); return; }
  const geometry = mesh.geometry, Attribute = geometry.attributes.position.constructor;
  geometry.setAttribute('uv', new Attribute(data.detailUv, 2));
  const side = Math.sqrt(data.detailSlope.length / (2 * (components + 1))), canvas = document.createElement('canvas');
  canvas.width = canvas.height = side;
  normalImage = canvas.getContext('2d').createImageData(side, side);
  normalMap = new Texture(canvas);
  setDetail(detailShown);
  show(currentFrame, true);
}

function textureClass(material) {
  const map = material.map || Object.values(material.uniforms || {}).map((u) => u.value).find((value) => value && value.isTexture);
  return map && map.constructor;
}

function updateNormalMap(frame) {
  const texels = normalImage.width ** 2, out = normalImage.data;
  const x = new Float32Array(texels), y = new Float32Array(texels);
  for (let map = 0; map <= components; map++) { // the static displacement, then its components
    const scale = data.detailScale[map] * (map ? data.detailWeight[frame * components + map - 1] : 1);
    if (Math.abs(scale) < 1e-9) continue;
    const first = 2 * map * texels, second = first + texels, slope = data.detailSlope;
    for (let i = 0; i < texels; i++) { x[i] += scale * slope[first + i]; y[i] += scale * slope[second + i]; }
  }
  for (let i = 0, k = 0; i < texels; i++, k += 4) {
    const length = 1 / Math.sqrt(1 + x[i] * x[i] + y[i] * y[i]);
    out[k] = 127.5 * (1 - x[i] * length); out[k + 1] = 127.5 * (1 - y[i] * length); out[k + 2] = 127.5 * (1 + length);
    out[k + 3] = 255;
  }
  normalMap.image.getContext('2d').putImageData(normalImage, 0, 0);
  normalMap.needsUpdate = true;
}

// ---- The clock ---------------------------------------------------------------------------------------------------

const video = $('video');
let time = 0, playing = false, speed = 1, lastTick = 0, hasVideo = false;

function frameAt(seconds) { // the latest frame at or before this time
  let low = 0, high = frames - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= seconds + 1e-4) low = middle; else high = middle - 1;
  }
  return low;
}

function loadVideo() {
  const parts = [...document.querySelectorAll('script.video')];
  if (!parts.length) {
    document.body.classList.add('no-video');
    document.querySelector('.film').hidden = true;
    $('sound').hidden = true;
    return;
  }
  const blobs = parts.map((part) => {
    const bytes = bytesOf(part.textContent.trim());
    part.remove();
    return bytes;
  });
  hasVideo = true;
  video.addEventListener('error', () => { // the head plays even if the browser can't decode the video
    hasVideo = false;
    setOverlay(false);
    document.querySelector('.film').innerHTML = '<p class="failed">This browser cannot play H.264 video.</p>';
  });
  video.addEventListener('ended', () => {
    time = video.currentTime;
    show(frameAt(time));
    setPlaying(false);
  });
  video.addEventListener('loadeddata', placeVideo);
  video.addEventListener('click', () => setPlaying(!playing));
  video.src = URL.createObjectURL(new Blob(blobs, { type: 'video/mp4' }));
}

function setPlaying(value) {
  if (value && frameAt(time) === frames - 1) seekTime(0);
  playing = value;
  lastTick = performance.now();
  if (hasVideo) {
    video.playbackRate = speed;
    if (value) video.play().catch(() => setPlaying(false));
    else { // the video has advanced since the last frame was drawn, so synchronise the head
      video.pause();
      time = video.currentTime;
      show(frameAt(time));
    }
  }
  $('play').setAttribute('aria-label', value ? 'Pause' : 'Play');
  $('play').querySelector('path').setAttribute('d', value ? 'M6 5h4v14H6zM14 5h4v14h-4z' : 'M8 5v14l11-7z');
}

function seekTime(seconds) {
  time = Math.min(Math.max(seconds, 0), times[frames - 1]);
  if (hasVideo) video.currentTime = time;
}

function seek(frame) {
  frame = Math.min(Math.max(Math.round(frame), 0), frames - 1);
  const next = frame + 1 < frames ? times[frame + 1] : times[frame] + meanInterval;
  time = times[frame];
  if (hasVideo) video.currentTime = time + 0.4 * (next - time); // well inside the frame's interval, so that rounding can't select its neighbour
  show(frame);
}

function tick(now) {
  if (playing) {
    if (hasVideo) time = video.currentTime;
    else time += Math.max(0, now - lastTick) / 1000 * speed;
    show(frameAt(time));
    if (!hasVideo && time >= duration) setPlaying(false);
  }
  lastTick = now;
  requestAnimationFrame(tick);
}

// ---- The view ----------------------------------------------------------------------------------------------------

let plot, mesh, currentFrame = -1, motion = 'still';

function pose(frame, motion) { // head to world, a row-major 4 x 4 matrix
  if (motion === 'still') return [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  const r = rotationOf(data.rotation, frame), t = data.translation.subarray(3 * frame, 3 * frame + 3);
  return [r[0], r[1], r[2], t[0], -r[3], -r[4], -r[5], -t[1], -r[6], -r[7], -r[8], -t[2], 0, 0, 0, 1];
}

function show(frame, redraw = false) {
  if (frame === currentFrame && !redraw) return;
  currentFrame = frame;
  const geometry = mesh.geometry, position = geometry.attributes.position;
  headVertices(frame, position.array);
  position.needsUpdate = true;
  geometry.computeVertexNormals();
  if (detailShown && normalMap) updateNormalMap(frame);
  mesh.matrixAutoUpdate = false;
  mesh.matrix.set(...pose(frame, motion));
  mesh.matrixWorldNeedsUpdate = true;
  mesh.visible = data.inShot[frame] > 0; // nobody else in the picture shall wear the head
  plot.render();
  $('scrub').value = frame;
  const percent = Math.round(data.confidence[frame] / 2.55);
  $('readout').innerHTML = `<b>${times[frame].toFixed(2)}</b> / ${duration.toFixed(2)} s &nbsp; frame <b>${frame}</b> / ${frames - 1} &nbsp; confidence <b>${percent} %</b>`;
  $('missing').hidden = data.confidence[frame] > 0;
  $('missing').textContent = mesh.visible ? 'no face found: filled in' : 'a shot without this person';
  placeVideo();
  drawOverlay();
  drawCurves(frame);
}

function resetView() {
  const view = motion === 'still' ? meta.stillView : meta.filmedView; // { camera: position, target, up; radius }
  plot.setCameraFOV(fittedFov(view.radius, Math.hypot(...view.camera.slice(0, 3).map((p, i) => p - view.camera[3 + i]))));
  plot.setCamera(view.camera);
  plot.render();
}

function fittedFov(radius, distance) { // vertical field of view in degrees that contains a sphere in a pane of any shape
  const box = $('canvasTarget').getBoundingClientRect(), aspect = Math.min(1, box.width / Math.max(box.height, 1));
  return 2 * Math.atan(1.12 * Math.tan(Math.asin(Math.min(radius / distance, 0.95))) / aspect) * 180 / Math.PI;
}

function setMotion(value) {
  motion = value;
  $('still').setAttribute('aria-pressed', value === 'still');
  $('filmed').setAttribute('aria-pressed', value === 'filmed');
  resetView();
  show(currentFrame, true);
}

function setDetail(value) {
  detailShown = value;
  if (!normalMap) return;
  mesh.material.normalMap = value ? normalMap : null;
  mesh.material.needsUpdate = true;
}

function setWireframe(value) {
  mesh.material.wireframe = value;
  $('wireframe').setAttribute('aria-pressed', value);
  plot.render();
  drawOverlay();
}

function setSound(value) {
  video.muted = !value;
  $('sound').setAttribute('aria-pressed', value);
}

// ---- Stages: the result after one of them, and A/B of two ---------------------------------------------------------

const STAGES = ['coarse', ...(lips ? ['lips'] : []), ...(components !== null ? ['detail'] : [])];
let stage = STAGES[STAGES.length - 1], otherStage = STAGES[0];

function setStage(name) {
  if (name !== stage) otherStage = stage;
  stage = name;
  lipsShown = lips > 0 && STAGES.indexOf(name) >= STAGES.indexOf('lips');
  if (components !== null) setDetail(name === 'detail');
  for (const each of STAGES) $(`stage-${each}`).setAttribute('aria-pressed', each === name);
  show(currentFrame, true);
}

function buildStages() {
  $('stages').hidden = $('stagesKey').hidden = STAGES.length < 2;
  const titles = { coarse: 'Coarse', lips: '+ Lips', detail: '+ Detail' };
  for (const name of STAGES) {
    const button = document.createElement('button');
    button.id = `stage-${name}`;
    button.textContent = titles[name];
    button.title = `Show the result after the stage ${name}`;
    button.setAttribute('aria-pressed', name === stage);
    button.addEventListener('click', () => setStage(name));
    $('stages').append(button);
  }
  $('compare').addEventListener('click', () => setStage(otherStage));
}

// ---- The video's part around the face, and the head over it ------------------------------------------------------

let cropped = true, overlay = false, wiper = 0.5, overlayRenderer = null;

// Scale and offset that take pixels of the capture to the view: x * scale + left, from the frame's top-left corner.
function placement() {
  const view = $('view'), width = view.clientWidth, height = view.clientHeight, [w, h] = meta.imageSize;
  if (!cropped) {
    const scale = Math.min(width / w, height / h);
    return { scale, left: (width - scale * w) / 2, top: (height - scale * h) / 2, width, height };
  }
  const row = 3 * Math.max(currentFrame, 0), crop = data.crops;
  // never smaller than the whole frame, nor larger than the part around the face
  const scale = Math.max(Math.min(width / w, height / h), Math.min(width, height) / (2 * crop[row + 2]));
  const shifted = (extent, side, centre) => { // the frame fills the view where it can
    const free = extent - scale * side;
    return free >= 0 ? free / 2 : Math.min(0, Math.max(free, extent / 2 - scale * (centre + 0.5)));
  };
  return { scale, left: shifted(width, w, crop[row]), top: shifted(height, h, crop[row + 1]), width, height };
}

function placeVideo() {
  if (!hasVideo) return;
  const { scale, left, top } = placement(), [w, h] = meta.imageSize;
  video.style.width = `${scale * w}px`;
  video.style.height = `${scale * h}px`;
  video.style.objectFit = 'fill'; // its size was rounded to even numbers
  video.style.transform = `translate(${left}px, ${top}px)`;
}

function setCrop(value) {
  cropped = value;
  $('face').setAttribute('aria-pressed', value);
  $('whole').setAttribute('aria-pressed', !value);
  placeVideo();
  drawOverlay();
}

function setOverlay(value) {
  overlay = value && hasVideo;
  $('overlay').setAttribute('aria-pressed', overlay);
  $('overlaid').hidden = $('wiper').hidden = !overlay;
  drawOverlay();
}

function setWiper(value) { // share of the view's width that is left of it
  wiper = Math.min(Math.max(value, 0), 1);
  const percent = Math.round(100 * wiper), handle = $('wiper');
  handle.style.left = `${100 * wiper}%`;
  handle.setAttribute('aria-valuenow', percent);
  handle.setAttribute('aria-valuetext', `${percent} % video`);
  $('overlaid').style.clipPath = `inset(0 0 0 ${100 * wiper}%)`;
}

// Draws the head with the camera of the video, by a second renderer of K3D's scene; lights follow the camera.
function drawOverlay() {
  if (!overlay || currentFrame < 0) return;
  const world = plot.getWorld(), camera = world.camera, canvas = $('overlaid');
  if (!overlayRenderer) {
    overlayRenderer = new world.renderer.constructor({ canvas, alpha: true, antialias: true });
    overlayRenderer.setClearColor(0, 0);
    overlayRenderer.outputColorSpace = world.renderer.outputColorSpace;
    overlayRenderer.toneMapping = world.renderer.toneMapping;
  }
  const { scale, left, top, width, height } = placement();
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  if (!width || !height) return;
  if (overlayRenderer.getPixelRatio() !== ratio) overlayRenderer.setPixelRatio(ratio);
  if (canvas.width !== Math.floor(width * ratio) || canvas.height !== Math.floor(height * ratio)) overlayRenderer.setSize(width, height, false);
  const before = ['position', 'quaternion', 'projectionMatrix', 'projectionMatrixInverse'].map((name) => [name, camera[name].clone()]);
  const [cx, cy] = meta.principalPoint, near = 0.01, far = 100, focal = scale * meta.focalLength;
  camera.position.set(0, 0, 0);
  camera.quaternion.set(0, 0, 0, 1);
  camera.projectionMatrix.set( // of pixels to [-1, 1]; (0, 0) is the middle of the top-left pixel
    2 * focal / width, 0, 1 - 2 * (scale * (cx + 0.5) + left) / width, 0,
    0, 2 * focal / height, 2 * (scale * (cy + 0.5) + top) / height - 1, 0,
    0, 0, (far + near) / (near - far), 2 * far * near / (near - far),
    0, 0, -1, 0);
  camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
  mesh.matrix.set(...pose(currentFrame, 'filmed'));
  mesh.matrixWorldNeedsUpdate = true;
  world.scene.updateMatrixWorld(true);
  overlayRenderer.render(world.scene, camera);
  for (const [name, value] of before) camera[name].copy(value);
  mesh.matrix.set(...pose(currentFrame, motion));
  mesh.matrixWorldNeedsUpdate = true;
  world.scene.updateMatrixWorld(true);
}

function connectFilm() {
  $('face').addEventListener('click', () => setCrop(true));
  $('whole').addEventListener('click', () => setCrop(false));
  $('overlay').addEventListener('click', () => setOverlay(!overlay));
  const handle = $('wiper');
  const move = (event) => {
    const box = $('view').getBoundingClientRect();
    setWiper((event.clientX - box.left) / box.width);
  };
  handle.addEventListener('pointerdown', (event) => { handle.setPointerCapture(event.pointerId); handle.focus(); event.preventDefault(); move(event); });
  handle.addEventListener('pointermove', (event) => { if (handle.hasPointerCapture(event.pointerId)) move(event); });
  handle.addEventListener('keydown', (event) => {
    const to = { ArrowLeft: wiper - 0.02, ArrowRight: wiper + 0.02, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // these keys also move through the clip
    setWiper(to);
  });
  new ResizeObserver(() => { placeVideo(); drawOverlay(); }).observe($('view'));
  setWiper(wiper);
}

// ---- Curves ------------------------------------------------------------------------------------------------------

const COLOURS = 8; // --curve0 to --curve7 of the style
let drawn = meta.curves.map((curve, k) => k).filter((k) => meta.curves[k].drawn); // numbers of curves, in their order

function themed(name) { // a colour of the style, which follows the browser's theme
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const WINDOW = 20; // seconds of curves around the current time, if the whole clip would be too dense

function visibleRange() {
  if (duration <= 1.5 * WINDOW) return [0, duration];
  const start = Math.min(Math.max(time - WINDOW / 2, 0), duration - WINDOW);
  return [start, start + WINDOW];
}

function resizedContext(canvas) { // the canvas at the screen's resolution; its context has CSS pixels as units
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, box.width, box.height);
  return [context, box.width, box.height];
}

function drawCurves(frame) {
  const [context, width, height] = resizedContext($('curves'));
  const [start, end] = visibleRange(), left = 26, bottom = 16;
  const x = (t) => left + (t - start) / (end - start) * (width - left - 2);
  const y = (w) => height - bottom - Math.max(0, Math.min(1, (w - meta.curveLow) / (meta.curveHigh - meta.curveLow))) * (height - bottom - 6);
  context.font = '11px system-ui, sans-serif';
  context.lineWidth = 1;
  context.strokeStyle = themed('line');
  context.fillStyle = themed('quiet');
  for (const value of [meta.curveLow, (meta.curveLow + meta.curveHigh) / 2, meta.curveHigh]) {
    context.beginPath(); context.moveTo(left, y(value)); context.lineTo(width, y(value)); context.stroke();
    context.fillText(value.toFixed(1), 2, y(value) + 4);
  }
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((s) => (end - start) / s <= width / 60) || 30;
  for (let t = Math.ceil(start / step) * step; t < end; t += step) {
    context.fillText(`${+t.toFixed(1)} s`, Math.min(x(t), width - 28), height - 2);
  }
  context.lineWidth = 1.6;
  context.lineJoin = 'round';
  const first = frameAt(start), last = Math.min(frames - 1, frameAt(end) + 1);
  const stride = Math.max(1, Math.floor((last - first) / (2 * width)));
  drawn.forEach((number, k) => {
    const curve = meta.curves[number];
    context.strokeStyle = themed(`curve${k % COLOURS}`);
    curve.units.forEach((unit, half) => {
      context.setLineDash(half ? [5, 4] : []); // the right half is dashed
      context.beginPath();
      for (let f = first; f <= last; f += stride) context.lineTo(x(times[f]), y(weight(f, unit)));
      context.stroke();
    });
    const values = curve.units.map((unit) => weight(frame, unit).toFixed(2));
    $('legend').children[k].lastChild.textContent = values.length > 1 ? `L ${values[0]}  R ${values[1]}` : values[0];
  });
  context.setLineDash([]);
  context.strokeStyle = themed('text');
  context.lineWidth = 1;
  context.beginPath(); context.moveTo(x(times[frame]), 2); context.lineTo(x(times[frame]), height - bottom); context.stroke();
}

function drawConfidence() { // the lowest confidence of each column's frames, from red (0) to green (1)
  const [context, width] = resizedContext($('confidence'));
  for (let column = 0; column < width; column++) {
    const from = Math.floor(column / width * frames), to = Math.max(from + 1, Math.floor((column + 1) / width * frames));
    let lowest = 255;
    for (let f = from; f < to; f++) lowest = Math.min(lowest, data.confidence[f]);
    context.fillStyle = `hsl(${lowest / 255 * 130}, 45%, 42%)`;
    context.fillRect(column, 0, 1, 4);
  }
}

function buildLegend() {
  $('legend').replaceChildren(...drawn.map((number, k) => {
    const row = document.createElement('li'), mark = document.createElement('i'), name = document.createElement('span');
    mark.style.borderColor = `var(--curve${k % COLOURS})`;
    name.textContent = meta.curves[number].name;
    if (meta.curves[number].units.length > 1) row.title = 'left half of the face: solid, right half: dashed';
    row.append(mark, name, document.createElement('b'));
    return row;
  }));
}

function buildPicker() {
  meta.curves.forEach((curve, number) => {
    const label = document.createElement('label'), box = document.createElement('input');
    box.type = 'checkbox';
    box.checked = drawn.includes(number);
    box.addEventListener('change', () => {
      drawn = box.checked ? [...drawn, number].sort((a, b) => a - b) : drawn.filter((other) => other !== number);
      buildLegend();
      drawCurves(currentFrame);
    });
    label.append(box, curve.units.length > 1 ? `${curve.name} L/R` : curve.name);
    $('sheet').append(label);
  });
  document.addEventListener('pointerdown', (event) => { if (!$('picker').contains(event.target)) $('picker').open = false; });
}

// ---- Controls ----------------------------------------------------------------------------------------------------

function connect() {
  $('scrub').max = frames - 1;
  $('scrub').addEventListener('input', () => seek(+$('scrub').value));
  $('play').addEventListener('click', () => setPlaying(!playing));
  $('speed').addEventListener('change', () => { speed = +$('speed').value; video.playbackRate = speed; });
  $('sound').addEventListener('click', () => setSound(video.muted));
  $('still').addEventListener('click', () => setMotion('still'));
  $('filmed').addEventListener('click', () => setMotion('filmed'));
  $('wireframe').addEventListener('click', () => setWireframe(!mesh.material.wireframe));
  $('reset').addEventListener('click', resetView);
  let dragging = false;
  const seekTo = (event) => {
    const box = $('curves').getBoundingClientRect(), [start, end] = visibleRange();
    seek(frameAt(start + (event.clientX - box.left - 26) / (box.width - 28) * (end - start)));
  };
  $('curves').addEventListener('pointerdown', (event) => { dragging = true; $('curves').setPointerCapture(event.pointerId); seekTo(event); });
  $('curves').addEventListener('pointermove', (event) => { if (dragging) seekTo(event); });
  $('curves').addEventListener('pointerup', () => { dragging = false; });
  $('curves').addEventListener('pointercancel', () => { dragging = false; });
  const keys = {
    ' ': () => setPlaying(!playing),
    ArrowLeft: (event) => step(event.shiftKey ? -1 : 0, -1),
    ArrowRight: (event) => step(event.shiftKey ? 1 : 0, 1),
    Home: () => seek(0),
    End: () => seek(frames - 1),
    h: () => setMotion(motion === 'still' ? 'filmed' : 'still'),
    a: () => { if (STAGES.length > 1) setStage(otherStage); },
    c: () => { if (hasVideo) setCrop(!cropped); },
    o: () => { if (hasVideo) setOverlay(!overlay); },
    Escape: () => { $('picker').open = false; },
    w: () => setWireframe(!mesh.material.wireframe),
    r: resetView,
    m: () => { if (hasVideo) setSound(video.muted); },
  };
  const step = (seconds, one) => {
    setPlaying(false);
    seek(seconds ? frameAt(Math.max(0, times[currentFrame] + seconds)) : currentFrame + one);
  };
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === 'SELECT' || event.target.type === 'checkbox') {
      if (event.key === 'Escape') $('picker').open = false;
      return;
    }
    if (event.key === ' ' && event.target.tagName === 'SUMMARY') return; // opens the list of curves
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault(); // also prevents space from pressing the focused button, and arrows from moving the slider twice
    action(event);
  });
  document.addEventListener('keyup', (event) => { if (event.key === ' ' && event.target.tagName === 'BUTTON') event.preventDefault(); });
  matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => drawCurves(currentFrame));
  new ResizeObserver(() => {
    plot.resizeHelper();
    plot.render();
    drawConfidence();
    drawCurves(currentFrame);
  }).observe($('canvasTarget'));
}

function positions() { // (V * 3) metres in the camera's axes, from the displayed vertices
  const vertex = mesh.geometry.attributes.position.array, r = rotationOf(data.rotation, currentFrame);
  const t = data.translation.subarray(3 * currentFrame, 3 * currentFrame + 3), out = new Float32Array(vertex.length);
  for (let i = 0; i < vertex.length; i += 3) {
    const moved = transformed(r, vertex[i], vertex[i + 1], vertex[i + 2]);
    for (let axis = 0; axis < 3; axis++) out[i + axis] = moved[axis] + t[axis];
  }
  return out;
}

// Called by K3D's snapshot when its plot is ready.
window.startAvface = (instance) => {
  plot = instance;
  mesh = plot.getObjectById(meta.meshId);
  mesh.frustumCulled = false;
  buildLegend();
  buildPicker();
  buildStages();
  loadVideo();
  connect();
  connectFilm();
  setPlaying(false);
  show(0);
  if (components !== null) setUpDetail();
  resetView();
  drawConfidence();
  requestAnimationFrame(tick);
  window.avface = {
    state: () => ({ frame: currentFrame, time, playing, speed, motion, stage, lips: lipsShown, detail: detailShown && normalMap !== null, cropped, overlay, wiper, curves: drawn.map((k) => meta.curves[k].name), frames, hasVideo, videoTime: hasVideo ? video.currentTime : null }),
    seek, positions, play: () => setPlaying(true), pause: () => setPlaying(false), setMotion, setStage, setCrop, setOverlay, setWiper, placement,
  };
};
})();
