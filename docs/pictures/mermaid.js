// Draws the diagrams of the site. On GitHub, and without a network, a page is complete without it: the diagram is text.
const blocks = document.querySelectorAll("pre > code.language-mermaid");
if (blocks.length) {
  const { default: mermaid } = await import("https://cdn.jsdelivr.net/npm/mermaid@11/dist/mermaid.esm.min.mjs");
  for (const block of blocks) {
    const drawing = document.createElement("pre");
    drawing.className = "mermaid";
    drawing.textContent = block.textContent;
    block.parentElement.replaceWith(drawing);
  }
  const dark = document.documentElement.dataset.bsTheme === "dark";
  mermaid.initialize({ startOnLoad: false, theme: dark ? "dark" : "neutral" });
  await mermaid.run();
}
