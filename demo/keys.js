// Keys press the buttons of the pad while the world is seen, unless somebody writes.
const buttons = {
    ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", " ": "jump", ".": "stay",
};
const heldEvery = 250; // milliseconds between two presses of a key that is held
let last = 0;

function buttonOf(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in buttons)) return null;
    if (!element.isConnected || element.offsetParent === null) return null;
    if (event.target.closest("input, textarea, select, [contenteditable=true]")) return null;
    if (event.key === " " && event.target.closest("button") && !event.target.closest("#pad")) return null;
    return document.querySelector(`#act-${buttons[event.key]}`);
}

function press(event) {
    const button = buttonOf(event);
    if (!button) return;
    event.preventDefault(); // no scrolling
    if (event.repeat && performance.now() - last < heldEvery) return;
    last = performance.now();
    button.click();
}

document.addEventListener("keydown", press);
// A button that has the focus would take the space for itself when it is let go.
document.addEventListener("keyup", (event) => { if (buttonOf(event)) event.preventDefault(); });
