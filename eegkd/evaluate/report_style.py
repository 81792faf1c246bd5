"""The look of a report: one style sheet, no outside font or script."""

CSS = """
:root { color-scheme: light; --ink: #1f2933; --muted: #616e7c; --line: #e4e7eb;
  --soft: #f5f7fa; --blue: #2563a8; --teal: #1f8a7d; --red: #c8455a; --amber: #9a6412; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; }
p { max-width: 75ch; margin: .5rem 0; }
.lead { color: var(--muted); margin-bottom: 1rem; }
.note, figcaption, td small { color: var(--muted); font-size: .875rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
  gap: .75rem 1.5rem; margin: 1.25rem 0 0; padding: 1rem 1.25rem;
  background: var(--soft); border-radius: 10px; }
dt { color: var(--muted); font-size: .8125rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.chip { display: inline-block; border-radius: 99px; padding: .05rem .6rem;
  font-size: .8125rem; font-weight: 600; white-space: nowrap; }
.better { color: var(--teal); background: #e3f4f1; }
.worse { color: var(--red); background: #fbe9ec; }
.undetectable { color: var(--muted); background: #eef1f4; }
.stamp { border-radius: 8px; padding: .6rem .9rem; margin: 1rem 0; font-weight: 600; }
.stamp.leak { color: #8f1f33; background: #fbe9ec; border-left: 4px solid var(--red); }
.stamp.warn { color: #6f470a; background: #fdf3e1; border-left: 4px solid #d08c2b; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: .8125rem;
  border-bottom: 1px solid #cbd2d9; padding: .4rem .9rem .4rem 0;
  vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: .45rem .9rem .45rem 0;
  vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
td small { display: block; }
td:first-child { min-width: 13rem; }
tr.student td { background: #f1f6fb; }
tr.student td:first-child { box-shadow: inset 3px 0 var(--blue); padding-left: .6rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg, figure img { display: block; width: 100%; height: auto; min-width: 34rem; }
figcaption { margin-top: .6rem; }
details { margin-top: .75rem; border: 1px solid var(--line); border-radius: 10px;
  padding: .6rem 1rem; }
details.config { margin-top: 2.75rem; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .8125rem; line-height: 1.45; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  html, body { font-size: 11px; }
  main { max-width: none; padding: 0; }
  .scroll, figure { overflow: visible; }
  h2, p.note { break-after: avoid; }
  tr, figure { break-inside: avoid; }
  details.config { display: none; }
}
"""
