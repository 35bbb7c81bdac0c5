// The style sheet. Boxes are laid out by CSS, so that text of any length wraps and the page works from 360 px on;
// figures are inline SVG with positions in percent.

enum Style {
    static let css = Palette.css + base + diagram + figures + print

    private static let base = """
        *{box-sizing:border-box}
        html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
        body{margin:0;hyphens:manual;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,\
        "Helvetica Neue","Noto Sans",Arial,sans-serif;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
        code,.mono{font-family:ui-monospace,"SF Mono","Cascadia Mono","JetBrains Mono",Menlo,Consolas,"DejaVu Sans Mono",\
        monospace;font-size:.92em;font-variant-ligatures:none}
        .wrap{max-width:1400px;margin:0 auto;padding:0 clamp(14px,3vw,40px) 48px}
        .skip{position:absolute;left:-9999px}
        .skip:focus{left:12px;top:12px;background:var(--card);padding:8px 14px;z-index:2}
        a{color:var(--accent)}
        a:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--accent);outline-offset:2px;border-radius:4px}
        header{padding:36px 0 8px}
        .eyebrow{margin:0;color:var(--muted);font-size:.85rem;letter-spacing:.02em}
        h1{margin:.1em 0 .3em;font-size:clamp(1.6rem,4vw,2.5rem);line-height:1.15;letter-spacing:-.02em}
        h1 .tech{display:inline-block;vertical-align:.18em;margin-left:.35em;padding:.2em .7em;border-radius:99px;\
        font-size:.42em;letter-spacing:.03em;font-weight:600;background:var(--accent);color:var(--card)}
        h2{margin:0 0 4px;font-size:1.3rem;letter-spacing:-.01em}
        h3{margin:0 0 2px;font-size:1rem}h3+table{margin-top:6px}.zooms+h3{margin-top:30px}
        p{margin:.3em 0}
        .lead{color:var(--muted);max-width:76ch;margin:0 0 18px}
        .ending{margin:0 0 14px}.ending b{font-weight:600}
        .good{color:var(--good)}.bad{color:var(--bad)}
        .banner{display:flex;gap:14px;padding:14px 18px;border-radius:12px;border-left:6px solid currentColor}
        .banner svg{flex:none;width:26px;height:26px;margin-top:1px}
        .banner p{margin:0;max-width:95ch}.banner b{display:block}
        .caution{background:var(--caution-ground);color:var(--caution)}
        .calm{background:var(--calm-ground);color:var(--calm)}
        .highlights{display:flex;flex-wrap:wrap;gap:1px;margin:18px 0 0;\
        padding:0;background:var(--line);border:1px solid var(--line);border-radius:12px;overflow:hidden}
        .highlights div{flex:1 1 130px;min-width:0;background:var(--card);padding:12px 16px}
        .highlights dt{color:var(--muted);font-size:.8rem}
        .highlights dd{margin:0;font-size:1.15rem;font-weight:600;letter-spacing:-.01em}
        nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:18px 0 0;font-size:.92rem}
        nav a{padding:4px 0;text-decoration:none;border-bottom:2px solid var(--line)}
        nav a:hover{border-color:currentColor}
        main>section{margin-top:26px;padding:clamp(16px,2.4vw,30px);background:var(--card);border:1px solid var(--line);\
        border-radius:16px}
        .facts{display:grid;grid-template-columns:auto 1fr;gap:1px 12px;margin:8px 0 0;font-size:.86rem}
        .facts dt{color:var(--muted);max-width:13em}.facts dd{margin:0}
        .untold{color:var(--muted);font-style:italic}
        .note{color:var(--muted);font-size:.9rem;max-width:80ch}
        footer{color:var(--muted);font-size:.85rem;padding-top:20px}
        .hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
        table{width:100%;border-collapse:collapse;font-size:.88rem}
        caption{text-align:left;color:var(--muted);padding-bottom:6px}
        th{text-align:left;font-weight:600;color:var(--muted);font-size:.8rem}
        th,td{padding:5px 10px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
        .number{text-align:right;white-space:nowrap}
        """

    private static let diagram = """
        .diagram,.outside{display:grid;grid-template-columns:minmax(0,1fr);margin:0}
        .server{position:relative;display:grid;grid-template-columns:1fr;border:2px dashed var(--shaft);\
        border-radius:16px;padding:34px 12px 14px}
        .place{position:absolute;top:8px;left:16px;color:var(--muted);font-size:.8rem;letter-spacing:.03em}
        .box{position:relative;background:var(--box);border:1px solid var(--line);border-top:4px solid var(--good);\
        border-radius:10px;padding:12px 14px;min-width:0}
        .box.host{border-top:4px dashed var(--outside)}
        .box.idle{border-top:4px solid var(--line);opacity:1}
        .box h3{display:flex;flex-wrap:wrap;gap:0 8px;align-items:baseline}
        .box .role{color:var(--muted);font-size:.82rem;margin:0}
        .wire{list-style:none;margin:0;padding:8px 0 8px 8px;display:flex;flex-direction:column;\
        justify-content:space-evenly;gap:12px;min-width:0}
        .arrow{min-width:0;font-size:.84rem;line-height:1.35;padding-left:12px;border-left:3px solid var(--shaft)}
        .arrow .name{display:flex;gap:7px;align-items:center}
        .arrow .name code{min-width:0;font-weight:600;font-size:.86rem}
        .badge{flex:none;display:inline-grid;place-items:center;width:22px;height:22px;border-radius:50%;\
        background:var(--accent);color:var(--card);font-size:.78rem;font-weight:700}
        .arrow .detail{color:var(--muted);display:block}
        .route{color:var(--muted);font-size:.78rem}
        .shaft{display:none;width:100%;height:12px;overflow:visible;color:var(--shaft)}
        .shaft line{stroke:currentColor;stroke-width:2}.shaft path{fill:currentColor}
        .arrow.from-owner .badge,.arrow.to-owner .badge{background:var(--good)}
        .arrow.failed .badge{background:var(--bad)}
        .link{position:relative;display:flex;align-items:center;padding:10px 0 10px 48px;color:var(--muted);\
        font-size:.82rem;line-height:1.3;min-height:58px}
        .link svg{position:absolute;left:22px;top:2px;width:14px;height:calc(100% - 4px);overflow:visible;\
        color:var(--shaft)}
        .link line{stroke:currentColor;stroke-width:2}.link path{fill:currentColor}
        .enters{min-height:0;margin-left:8px;padding:2px 0 10px 12px}.enters svg{display:none}
        .keys{list-style:none;margin:8px 0 0;padding:0;display:grid;gap:5px;font-size:.86rem}
        .keys li{display:flex;gap:9px;align-items:center;padding:5px 9px;border:1px solid var(--line);\
        border-radius:7px;background:var(--card)}
        .keys svg{flex:none;width:16px;height:16px;color:var(--good)}
        .keys .free svg{color:var(--muted)}
        .processor{margin-top:10px}
        .processor .title{font-size:.82rem;color:var(--muted)}
        .pages{display:grid;grid-template-columns:repeat(auto-fit,minmax(96px,1fr));gap:6px}
        .pages div{background:var(--card);border:1px solid var(--line);border-left-width:5px;border-radius:6px;\
        padding:4px 8px;font-size:.8rem;line-height:1.3;min-width:0}
        .pages .broad{grid-column:1/-1}.pages b{display:block}.pages small{color:var(--muted);font-size:.76rem;display:block}
        .pages .host{border-left:5px dashed var(--outside)}.pages .guest{border-left-color:var(--good)}
        .pages .both{border-left:5px dotted var(--outside)}
        .share{display:block;width:100%;height:16px;margin-top:10px;border-radius:4px}
        .sides{display:grid;gap:2px;margin:6px 0 0;padding:0;list-style:none;font-size:.84rem}
        .machines{display:grid;gap:12px;min-width:0;align-content:start}
        .trust{display:flex;flex-wrap:wrap;gap:4px 22px;margin:12px 0 0;padding:0;list-style:none;font-size:.84rem;\
        color:var(--muted)}
        .trust i{display:inline-block;width:28px;margin-right:8px;vertical-align:.3em;border-top:4px solid var(--good)}
        .trust .host i{border-top:4px dashed var(--outside)}
        @media (min-width:620px){.outer{display:grid;grid-template-columns:1fr 1fr}}
        @media (min-width:820px){
        .server{grid-template-columns:minmax(0,1.05fr) minmax(0,.92fr) minmax(0,1fr);\
        grid-template-areas:"h w f" "vr . lk" "v a c" "v . cm" "v . m" "v . .";\
        grid-template-rows:auto auto auto auto auto 1fr}
        .hypervisor{grid-area:h}.launch{grid-area:w}.firmware{grid-area:f}.loads{grid-area:lk}.controller{grid-area:c}
        .stores{grid-area:cm}.memory{grid-area:m}.access{grid-area:a}.machines{grid-area:v}.enters{grid-area:vr}
        .server .wire{padding:4px 0}
        .server .arrow{padding:0;border:0}.server .arrow>.name,.server .arrow>.detail{padding:0 14px 0 12px}
        .server .route{display:none}.server .shaft{display:block}
        .enters{min-height:58px;margin:0;padding:10px 0 10px 48px}.enters svg{display:block}
        .server .access{justify-content:flex-start;padding-top:26px}
        }
        @media (min-width:1200px){
        .diagram{grid-template-columns:minmax(312px,1.22fr) minmax(0,3.4fr);align-items:start}
        .diagram.alone{grid-template-columns:minmax(156px,.62fr) minmax(0,3.4fr);gap:26px}
        .outside{grid-template-columns:1fr 1fr;margin-top:36px}.alone .outside{grid-template-columns:1fr}
        .outside .facts{grid-template-columns:1fr}.outside .facts dd{margin-bottom:6px}
        .outside .outer{display:flex;justify-content:flex-start;gap:14px;margin-right:-14px;padding:4px 0}
        .outer .arrow{padding:0;border:0}.outer .arrow>.name,.outer .arrow>.detail{padding:0 24px 0 12px}
        .outer .route{display:none}.outer .shaft{display:block}
        }
        """

    private static let figures = """
        .identity{display:grid;gap:26px;grid-template-columns:1fr}
        @media (min-width:980px){.identity{grid-template-columns:1fr 1fr}}
        .digest{margin:0 0 14px}
        .digest code{display:block;padding:8px 10px;border:1px solid var(--line);border-radius:8px;background:var(--box);\
        font-size:.84rem;word-break:break-all}
        .policy{margin:6px 0 0;padding:0;list-style:none;font-size:.9rem}
        .policy li{display:grid;grid-template-columns:minmax(120px,11em) 1fr;gap:10px;padding:4px 0;\
        border-bottom:1px solid var(--grid)}
        .policy .warn{color:var(--outside);font-weight:600}
        .ribbon{display:block;width:100%;height:30px;border-radius:6px}
        .key{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 18px;padding:0;list-style:none;font-size:.86rem}
        .key svg,.swatch{width:18px;height:14px;margin-right:7px;vertical-align:-.1em;border-radius:3px}
        .steps{list-style:none;margin:0;padding:0}
        .step{display:grid;grid-template-columns:1fr auto;gap:0 12px;align-items:center;padding:6px 0;\
        border-bottom:1px solid var(--grid);font-size:.9rem}
        .step .time{grid-column:2;grid-row:1;text-align:right;white-space:nowrap;font-weight:600}
        .step .what small{color:var(--muted);display:block}
        .step svg{grid-column:1/-1;grid-row:2;width:100%;height:14px;display:block;overflow:visible}
        .scale{font-size:.76rem;color:var(--muted);padding:4px 0}.scale svg{height:18px}
        svg text{font-size:11.5px;fill:var(--muted);font-family:inherit}
        .gridline{stroke:var(--grid);stroke-width:1}
        @media (min-width:760px){
        .step{grid-template-columns:minmax(220px,30%) 1fr 84px}
        .step svg{grid-column:2;grid-row:1;height:22px}.step .time{grid-column:3}
        }
        .strip{display:block;width:100%;height:44px;border-radius:6px}
        .strip.small{height:30px}
        .axis{display:block;width:100%;height:20px;overflow:visible}
        .zooms{display:grid;gap:18px 26px;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));margin:14px 0}
        .zoom{min-width:0}
        .zoom h4{margin:0 0 4px;font-size:.9rem;font-weight:600}
        .zoom .cells{display:block;width:100%;height:62px}
        .rowname{font-size:.8rem;color:var(--muted);margin:8px 0 2px}
        .legend td:first-child{white-space:nowrap;padding-right:14px}
        .legend .meaning{color:var(--muted)}
        .legend{margin:14px 0 26px}.regions .number{padding-right:26px}
        .pieces{margin:4px 0 0;padding-left:2em;font-size:.84rem;columns:2 230px;column-gap:24px}
        .pieces.single{list-style:none;padding:0;columns:auto}
        .regions .changed{font-weight:600}
        .exit{display:grid;grid-template-columns:1fr auto;gap:2px 14px;align-items:center;padding:8px 0;\
        border-bottom:1px solid var(--grid);font-size:.9rem}
        .exit .what small{color:var(--muted);display:block;line-height:1.3}
        .exit .total{text-align:right;font-weight:600;white-space:nowrap}
        .exit .total small{color:var(--muted);display:block;font-weight:400}
        .exit .plot{grid-column:1/-1;min-width:0}
        .exit .plot svg{display:block;width:100%;height:38px;border-bottom:1px solid var(--shaft)}
        .exit .plot small{color:var(--muted);font-size:.76rem}
        .exit.all .plot svg{height:64px}
        .exit path{fill:var(--launch)}.exit.all path{fill:var(--prepare)}
        @media (min-width:760px){
        .exit{grid-template-columns:minmax(220px,26%) 120px 1fr}
        .exit .plot{grid-column:3;grid-row:1}
        }
        @media (max-width:620px){
        .stack thead{display:none}.stack tr{display:block;padding:6px 0;border-bottom:1px solid var(--line)}
        .stack td{display:flex;justify-content:space-between;gap:14px;border:0;padding:1px 0;text-align:right}
        .stack td:first-child{text-align:left;display:block;font-weight:600;white-space:normal}
        .stack td::before{content:attr(data-label);color:var(--muted);text-align:left;font-weight:400;flex:none}
        .stack td.meaning{text-align:left}.stack td.meaning::before,.stack td:first-child::before{content:none}.stack td:empty{display:none}
        }
        """

    private static let print = """
        *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
        @media print{
        body{font-size:11pt;background:#fff}.wrap{max-width:none;padding:0}nav,.skip{display:none}
        main>section{border:0;padding:0;break-inside:auto}
        .box,.step,.exit,.zoom,.arrow,tr{break-inside:avoid}
        }
        @media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
        """
}
