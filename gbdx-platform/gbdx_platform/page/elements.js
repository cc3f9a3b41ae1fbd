// Elements of the page and of its picture. Text only ever becomes text nodes: whatever a task prints or is called,
// nothing of it is run or read as markup.

const SVG = "http://www.w3.org/2000/svg";
const WORDS = { submitted: "waiting", scheduled: "scheduled", started: "running" };

export function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name, value);
    } else {
      element.setAttribute(name, value);
    }
  }
  element.append(...children);
  return element;
}

export const html = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => made(document.createElementNS(SVG, name), attributes, children);
export const row = (...cells) => html("tr", {}, ...cells.map(cell => html("td", {}, cell)));
export const word = state => WORDS[state.event] || state.event;
export const whole = state => `${state.state}/${state.event}`;
