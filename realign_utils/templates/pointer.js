// Figures that answer the pointer: names and values of cells and points, by mouse, touch and arrow keys.
"use strict";
(() => {
  const make = (name, parent) => {
    const element = document.createElement("div");
    element.className = name;
    parent.append(element);
    return element;
  };
  const tip = make("tip", document.body);
  tip.setAttribute("role", "status");
  const REACH = 22; // pixels from a point within which it answers

  // Places of all that answers in one figure; a place is { part, row, column } or { part, point }.
  const said = ({ part, row, column, point }) => {
    if (part.kind === "points") return [part.names[point], ...part.lines[point]];
    const name = (i) => part.names[i] + (part.groups[i] ? ` (${part.groups[i]})` : "");
    if (row === column) return [name(row), "the same model"];
    const value = part.values[row][column];
    const told = value === null ? "no value" : `${part.quantity} ${value.toFixed(3)}`;
    return [name(row), name(column), told, ...(part.title ? [part.title] : [])];
  };
  const box = ({ part, row, column, point }) => {
    if (part.kind === "points") return [...part.at[point], 0, 0];
    const [left, top, width, height] = part.box, n = part.names.length;
    return [left + (column * width) / n, top + (row * height) / n, width / n, height / n];
  };
  // The same thing in the figure's other parts, so that a model is found in every panel.
  const twins = (parts, place) => parts.flatMap((part) => {
    if (part === place.part) return [place];
    if (part.kind !== place.part.kind) return [];
    const there = (i) => part.names.indexOf(place.part.names[i]);
    if (part.kind === "points") return there(place.point) < 0 ? [] : [{ part, point: there(place.point) }];
    const [row, column] = [there(place.row), there(place.column)];
    return row < 0 || column < 0 ? [] : [{ part, row, column }];
  });

  const found = (parts, x, y, size) => {
    let best = null, least = REACH;
    for (const part of parts) {
      if (part.kind === "cells") {
        const [left, top, width, height] = part.box, n = part.names.length;
        const column = Math.floor(((x - left) / width) * n), row = Math.floor(((y - top) / height) * n);
        if (row >= 0 && row < n && column >= 0 && column < n) return { part, row, column };
        continue;
      }
      part.at.forEach(([px, py], point) => {
        const distance = Math.hypot((px - x) * size.width, (py - y) * size.height);
        if (distance < least) [best, least] = [{ part, point }, distance];
      });
    }
    return best;
  };
  // One step by an arrow key: to the next cell, or to the nearest point in that direction; sideways
  // out of one part into the next.
  const step = (parts, place, [dx, dy]) => {
    const { part } = place, next = parts[parts.indexOf(part) + dx];
    const last = part.names.length - 1, within = (i, n) => Math.min(n, Math.max(0, i));
    if (part.kind === "cells") {
      const column = place.column + dx, row = within(place.row + dy, last);
      if (column === within(column, last)) return { part, row, column };
      if (next?.kind !== "cells") return place;
      const end = next.names.length - 1;
      return { part: next, row: within(row, end), column: dx > 0 ? 0 : end };
    }
    const [x, y] = part.at[place.point];
    let best = next?.kind === "points" && next !== part && next.at.length ? { part: next, point: 0 } : place;
    let least = Infinity;
    part.at.forEach(([px, py], point) => {
      const along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 1e-6 && along + 2 * across < least) [best, least] = [{ part, point }, along + 2 * across];
    });
    return best;
  };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const answer = (plate, { name, parts }) => {
    let marks = [], current = null;
    const hide = () => {
      if (!current) return; // the tip may be another figure's
      marks.forEach((mark) => mark.remove());
      marks = [];
      current = null;
      tip.classList.remove("shown");
    };
    const show = (place, x, y) => {
      hide();
      current = place;
      const [left, top, width, height] = box(place), frame = plate.getBoundingClientRect();
      for (const twin of twins(parts, place)) {
        const mark = make(`mark ${twin.part.kind}`, plate);
        box(twin).forEach((share, i) => { mark.style[["left", "top", "width", "height"][i]] = `${100 * share}%`; });
        marks.push(mark);
      }
      tip.replaceChildren(...said(place).map((line) => {
        const element = document.createElement("div");
        element.textContent = line;
        return element;
      }));
      tip.classList.add("shown");
      x ??= frame.left + (left + width / 2) * frame.width;
      y ??= frame.top + (top + height / 2) * frame.height;
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      const above = y - tip.offsetHeight - 18;
      tip.style.left = `${Math.max(8, Math.min(room, x - tip.offsetWidth / 2))}px`;
      tip.style.top = `${above < 8 ? y + 22 : above}px`;
    };
    const follow = (event) => {
      const frame = plate.getBoundingClientRect();
      const x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
      const place = found(parts, x, y, frame);
      if (place) show(place, event.clientX, event.clientY);
      else hide();
    };
    plate.tabIndex = 0;
    plate.setAttribute("role", "application");
    plate.setAttribute("aria-label", `${name}: the arrow keys read out its ${parts[0].kind}`);
    plate.addEventListener("pointermove", follow);
    plate.addEventListener("pointerdown", follow);
    plate.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    plate.addEventListener("blur", hide);
    plate.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      if (!(event.key in ARROWS)) return;
      event.preventDefault();
      const first = parts[0].kind === "cells" ? { part: parts[0], row: 0, column: 1 } : { part: parts[0], point: 0 };
      show(current ? step(parts, current, ARROWS[event.key]) : first);
    });
    document.addEventListener("pointerdown", (event) => { if (!plate.contains(event.target)) hide(); });
    window.addEventListener("scroll", hide, { passive: true });
    make("hint", plate.parentElement).textContent = "Point at, tap, or focus and use the arrow keys: names and values.";
  };
  for (const data of document.querySelectorAll("script[type='application/json'].places")) {
    answer(data.parentElement.querySelector(".plate"), JSON.parse(data.textContent));
  }
})();
