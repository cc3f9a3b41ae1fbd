// A workflow as a picture: a box for each task, a line for each that waits for another.

import { made, svg, whole, word } from "./elements.js";

const NODE = { width: 190, height: 52, gap: 18, between: 70, bend: 10 };
const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;
const waits = task => [...new Set(task.inputs.filter(input => input.source).map(input => input.source.split(":")[0]))];

// Columns by the longest way from a start; an edge over several columns passes a small bend in each, so that it goes
// between the tasks and not behind them; within a column, by the middle of what leads there.
function layout(tasks) {
  const named = new Map(tasks.map(task => [task.name, task]));
  const items = new Map(), edges = [];
  const place = name => {
    if (!items.has(name)) {
      const before = waits(named.get(name)).map(place);
      items.set(name, { task: named.get(name), column: 1 + Math.max(-1, ...before.map(one => one.column)), before: [] });
    }
    return items.get(name);
  };
  tasks.forEach(task => place(task.name));
  const all = [...items.values()];
  for (const item of [...all]) {
    for (const start of waits(item.task).map(place)) {
      const edge = [start];
      for (let column = start.column + 1; column < item.column; column += 1) {
        edge.push({ column, before: [edge.at(-1)] });
        all.push(edge.at(-1));
      }
      item.before.push(edge.at(-1));
      edges.push([...edge, item]);
    }
  }
  const columns = [];
  for (const item of all) { (columns[item.column] ??= []).push(item); }
  columns.forEach(stack);
  const tallest = Math.max(...columns.map(column => column.height));
  for (const item of all) { item.y += (tallest - columns[item.column].height) / 2; }
  const width = columns.length * (NODE.width + NODE.between) - NODE.between;
  return { items: all, edges, width, height: tallest };
}

function stack(column) {
  const middle = item => item.before.reduce((sum, one) => sum + one.order, 0) / (item.before.length || 1);
  column.sort((one, other) => middle(one) - middle(other));
  column.height = -NODE.gap;
  column.forEach((item, index) => {
    const height = item.task ? NODE.height : NODE.bend;
    item.order = index / column.length;
    item.x = item.column * (NODE.width + NODE.between);
    item.y = column.height + NODE.gap + height / 2;
    column.height += height + NODE.gap;
  });
}

function curve(points) {
  const right = item => item.x + NODE.width, half = NODE.between / 2;
  let line = `M${right(points[0])},${points[0].y}`;
  for (let index = 1; index < points.length; index += 1) {
    const [from, to] = [points[index - 1], points[index]];
    line += ` C${right(from) + half},${from.y} ${to.x - half},${to.y} ${to.task ? to.x - 7 : to.x},${to.y}`;
    if (!to.task) { line += ` H${right(to)}`; }
  }
  return line;
}

function node(item, act) {
  const { task, x } = item, y = item.y - NODE.height / 2;
  const press = event => {
    if (event.key !== "Enter" && event.key !== " ") { return; }
    event.preventDefault();
    act(task);
  };
  const about = { class: `node ${task.state.event}`, role: "button", tabindex: 0, "data-task": task.name };
  return svg("g", { ...about, click: () => act(task), keydown: press },
    svg("title", {}, `${task.name} (${task.taskType}): ${whole(task.state)}`),
    svg("rect", { x, y, width: NODE.width, height: NODE.height, rx: 8 }),
    svg("rect", { class: "bar", x: x + 8, y: y + 10, width: 4, height: NODE.height - 20, rx: 2 }),
    svg("text", { x: x + 22, y: y + 22 }, short(task.name, 20)),
    svg("text", { class: "word", x: x + 22, y: y + 40 }, word(task.state)));
}

export function draw(tasks, act) {
  const { items, edges, width, height } = layout(tasks), picture = document.getElementById("graph");
  const box = { viewBox: `-4 -4 ${width + 8} ${height + 8}`, width: width + 8, height: height + 8 };
  made(picture, box, []);
  picture.style.minWidth = `${box.width * 0.7}px`;  // it shrinks to the page, but not to what nobody could read
  const size = { viewBox: "0 0 8 8", refX: 1, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" };
  return [
    svg("defs", {}, svg("marker", { id: "tip", ...size }, svg("path", { d: "M0,0 L8,4 L0,8 Z" }))),
    ...edges.map(points => svg("path", { class: "edge", d: curve(points), "marker-end": "url(#tip)" })),
    ...items.filter(item => item.task).map(item => node(item, act)),
  ];
}
