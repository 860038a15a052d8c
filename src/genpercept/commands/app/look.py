"""How the page looks: the system's own fonts, light or dark as the system is, one column on a phone."""

from __future__ import annotations

import gradio as gr

CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto; padding: 12px !important; }
#title h1 { font-size: 1.5rem; margin: 0; }
#title p, .facts, .credits { color: var(--body-text-color-subdued); }
#title p { margin: .1rem 0 0; }
.facts, .credits { font-size: .85rem; margin: 0; font-variant-numeric: tabular-nums; }
#title .html-container, .html-container { padding: 0 2px !important; }
.meaning, .files, .legend { margin: 0; }
h2 { font-size: 1rem !important; margin: .4rem 0 0 !important; }
.line:not(:has(.wrong)) { display: none; }
.wrong { margin: 0; padding: .5rem .8rem; border-radius: 6px; border-left: 4px solid #c62828;
  background: color-mix(in srgb, #c62828 12%, transparent); overflow-wrap: anywhere; }
.files { display: flex; flex-wrap: wrap; gap: .5rem; }
.files a { padding: .45rem .8rem; border: 1px solid var(--border-color-primary); border-radius: 6px;
  color: var(--body-text-color); text-decoration: none; background: var(--button-secondary-background-fill); }
.files a:hover { border-color: var(--color-accent); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: .3rem 0 0; font-size: .9rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend span { width: .9rem; height: .9rem; border-radius: 3px; border: 1px solid var(--border-color-primary); }
.checked img { background: repeating-conic-gradient(#bbb 0 25%, #eee 0 50%) 0 0 / 20px 20px; }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) !important; }
#examples, #examples .grid-wrap { min-height: 0; height: auto; max-height: none; }
.scroll-hide, pre, code, .cm-content { overflow-wrap: anywhere; }
a:focus-visible, button:focus-visible, [tabindex]:focus-visible, input:focus-visible {
  outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""

# gradio takes no rules for narrow screens in CSS. It shows another source only once the picture is gone: choosing one takes it
# away first.
HEAD = """<style>
@media (max-width: 600px) {
  .gradio-container { padding: 4px !important; }
  .gradio-container main.contain, .gradio-container .main.fillable { padding: 4px !important; }
}
</style>
<script>
addEventListener("click", (event) => {
  const source = event.target.closest('[aria-label="Capture from camera"], [aria-label="Upload file"]');
  source?.closest(".block")?.querySelector('[aria-label="Remove Image"]')?.click();
}, true);
</script>"""

_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    return gr.themes.Default(primary_hue="blue", neutral_hue="gray", font=_FONT, font_mono=_MONO)
