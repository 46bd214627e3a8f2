/** The page's style. No script, no font, no image from anywhere: the page must look the same in ten years without a network. */
export const style = `
:root{color-scheme:light dark;--bg:#fff;--card:#f6f8fa;--ink:#1b1f24;--soft:#57606a;--rule:#d5dbe1;--good:#1a7f37;--bad:#b3202c;--warn:#8a5a00;--line:#0550ae;--gap:#e9edf1;--good-bg:#e6f4ea;--bad-bg:#fdebec;--warn-bg:#fdf3dc}
@media (prefers-color-scheme:dark){:root{--bg:#0e1116;--card:#171b21;--ink:#e6edf3;--soft:#9aa4af;--rule:#30363d;--good:#4ac26b;--bad:#ff8182;--warn:#e3b341;--line:#79c0ff;--gap:#1c2229;--good-bg:#12261a;--bad-bg:#2d1618;--warn-bg:#2a2110}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:68rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.1rem 0 1rem}
h2{font-size:1.15rem;line-height:1.3;margin:2.6rem 0 .5rem;padding-bottom:.3rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.4rem 0;max-width:46rem}
a{color:var(--line)}
.over{color:var(--soft);font-size:.88em;letter-spacing:.02em;margin:0}
.soft{color:var(--soft)}
.small{font-size:.88em}
code,pre,.mono{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.84em;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--rule);border-radius:6px;padding:.7rem .9rem;margin:.5rem 0;overflow-x:auto;line-height:1.45;white-space:pre-wrap}
.group{margin-right:.5em}
.verdict{display:flex;gap:1rem;align-items:center;border:1px solid;border-left-width:.5rem;border-radius:6px;padding:.9rem 1.1rem;margin:0 0 .8rem}
.verdict b{white-space:nowrap;flex:none;font-size:1.5rem;line-height:1.1;letter-spacing:.03em}
.verdict p{margin:0}
.verdict.green{background:var(--good-bg);border-color:var(--good)}.verdict.green b{color:var(--good)}
.verdict.red{background:var(--bad-bg);border-color:var(--bad)}.verdict.red b{color:var(--bad)}
.verdict.unknown{background:var(--warn-bg);border-color:var(--warn)}.verdict.unknown b{color:var(--warn)}
.note{background:var(--warn-bg);border:1px solid var(--warn);border-radius:6px;padding:.5rem .9rem;max-width:none}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;margin:1rem 0 0}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.92em}
th,td{text-align:left;vertical-align:top;padding:.38em .75em .38em 0;border-bottom:1px solid var(--rule);overflow-wrap:break-word}
.long{overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600;font-size:.92em;white-space:nowrap}
tbody th{color:inherit;font-size:inherit;white-space:normal}
tbody th .soft{font-weight:400}
td:last-child,th:last-child{padding-right:0}
.num{text-align:right;white-space:nowrap}
td.num,th.num{padding-right:1.1rem}
table.narrow{max-width:46rem}
.nowrap{white-space:nowrap}
.state{white-space:nowrap;font-weight:600}
.state.green{color:var(--good)}.state.red{color:var(--bad)}.state.unknown{color:var(--warn)}.state.none{color:var(--soft);font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.1rem 1.6rem;margin:.8rem 0}
figure{margin:0;break-inside:avoid;min-width:0}
figcaption{font-weight:600;font-size:.95rem}
figcaption span{color:var(--soft);font-weight:400}
svg{display:block;width:100%;height:auto;margin-top:.2rem}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:var(--soft)}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .gap{fill:var(--gap)}
svg .line{fill:none;stroke:var(--line);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
svg .dot{fill:var(--line)}
svg .breach{fill:var(--bad)}
svg .limit{stroke:var(--bad);stroke-width:1.2;stroke-dasharray:5 3}
svg .limit-words{fill:var(--bad);paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
svg .none{font-size:13px;fill:var(--soft)}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--soft)}
ul.plain{margin:.4rem 0;padding-left:1.1rem;max-width:52rem}
.score{display:flex;align-items:baseline;gap:.8rem;flex-wrap:wrap}
.score b{font-size:1.5rem}
footer{margin-top:3rem;padding-top:.8rem;border-top:1px solid var(--rule);color:var(--soft);font-size:.88em}
@media (max-width:44rem){
main{padding:1rem 1rem 3rem}
h1{font-size:1.4rem}
.verdict{gap:.7rem;align-items:flex-start;flex-direction:column}
dl.facts{grid-template-columns:1fr;gap:0}
dl.facts dt{margin-top:.5rem;font-size:.85rem}
table.wide,table.wide tbody,table.wide tr,table.wide td,table.wide tbody th{display:block;width:auto}
table.wide thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table.wide tr{border:1px solid var(--rule);border-radius:6px;padding:.45rem .75rem;margin:.5rem 0}
table.wide td,table.wide tbody th{border:0;padding:.1rem 0;text-align:left;white-space:normal}
table.wide td[data-label]::before{content:attr(data-label) ": ";color:var(--soft)}
table.wide td:empty{display:none}
}
@page{size:A4;margin:16mm 14mm}
@media print{
:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--rule:#bbb;--good:#14632b;--bad:#a01822;--warn:#6f4800;--line:#0550ae;--gap:#eee;--good-bg:#fff;--bad-bg:#fff;--warn-bg:#fff}
body{font-size:9.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}
h1{font-size:17pt}h2{font-size:12pt;margin-top:1.4rem;break-after:avoid}h3{font-size:10pt;break-after:avoid}
figcaption{font-size:9pt}.verdict b{font-size:15pt}.score b{font-size:14pt}
table{font-size:8.5pt}
tr,.verdict,pre{break-inside:avoid}
thead{display:table-header-group}
details{display:none}
.charts{grid-template-columns:1fr 1fr;gap:.8rem 1.2rem}
a{color:inherit;text-decoration:none}
}
`.trim()
