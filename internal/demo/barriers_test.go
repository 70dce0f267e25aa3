package demo

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// axeScript is axe-core (https://github.com/dequelabs/axe-core), which scripts/setup-test.sh fetches.
const axeScript = "../../.cache/axe.min.js"

// barrier is what axe-core finds.
type barrier struct {
	ID    string `json:"id"`
	Help  string `json:"help"`
	Nodes []struct {
		HTML    string `json:"html"`
		Failure string `json:"failureSummary"`
	} `json:"nodes"`
}

// noBarriers looks at every page with all there is to see on it: in light and dark, on a screen and on a telephone.
func noBarriers(t *testing.T, w *world) {
	axe, err := os.ReadFile(axeScript)
	if err != nil {
		t.Skip("axe-core is not installed: scripts/setup-test.sh fetches it")
	}
	w.missed(t)
	w.rolledBack(t)
	device := "/devices/" + w.altered.id
	pages := []string{
		"/", "/devices", "/devices?state=active", "/devices?q=ffffffffffff", device, "/devices/" + w.silent.id, "/devices/nothing", "/findings", "/cases",
		"/releases", "/releases/" + w.releases[v2], "/releases/" + w.releases[v2] + "/components", "/components", "/components?what=pkg:golang/golang.org/x/sys", "/supply", "/supply/" + productID, w.decision, "/rollouts", "/rollouts/update-1", "/rollouts/update-1?list=failed",
		"/suppliers", "/suppliers/acme-memory", "/parts", "/parts/flash", "/lots", "/lots/flash-2626", "/orders", "/orders/" + w.order, "/orders/" + w.order + "/differences", "/orders/" + w.order + "/differences?list=missing", "/desks", "/masters", "/masters/" + w.takenIn(t), "/chips", "/chips?uid=0123", "/certificates",
		"/compliance?framework=etsi-en-303-645", "/compliance/etsi-en-303-645/5.3-13", "/streams", "/ledger", "/ledger?log=events", "/ledger/control/0", "/ledger/events/1",
		"/platform", "/account", "/proposals", w.proposal, "/members", "/members/person:rita", "/members/person:ada", "/audit", "/audit?denied=1", "/genuine", "/genuine?id=" + w.well.id,
		"/g/" + w.well.id, "/owners", w.owner, "/claim", "/enrolments", "/transfer/" + w.well.id,
		"/transfers", "/vouchers", w.voucher, "/makers", "/clients", "/authorities", "/authorities?of=orders", "/bundles", "/bundles/" + productID,
	}
	p := w.signedIn(t, "ada")
	var links []string
	for _, page := range pages {
		p.do("look in passing", chromedp.EmulateViewport(1280, 900))
		p.visit(page)
		p.until("the page to be whole", `document.readyState === "complete"`)
		links = append(links, look[[]string](p, `[...document.querySelectorAll("a[href^='/']")].map((a) => a.getAttribute("href"))`)...)
		p.scheme("light")
		p.axe(axe, page, "light")
		p.wide(page)
		if name := map[string]string{"/compliance?framework=etsi-en-303-645": "compliance", "/authorities": "authorities", "/orders/" + w.order + "/differences": "differences"}[page]; name != "" {
			p.picture(name, "light")
		}
		p.scheme("dark")
		p.axe(axe, page, "dark", "color-contrast") // all else is the same in the dark
		p.narrow(page)
		p.axe(axe, page, "on a telephone", "color-contrast", "target-size", "scrollable-region-focusable", "landmark-one-main", "region")
		if page == "/" {
			p.picture("phone", "dark")
		}
	}
	for _, l := range links {
		if !slices.ContainsFunc(pages, func(page string) bool { return kindOf(page) == kindOf(l) }) {
			t.Errorf("a page is not looked at: %s", l)
		}
	}
}

var (
	parameters = regexp.MustCompile(`[?#].*$`)
	elsewhere  = regexp.MustCompile(`^/(api|log|assets|login)(/|$)`)
	name       = regexp.MustCompile(`^(/[a-z]+)/.+$`)
)

// kindOf is what all pages of a kind have in common.
func kindOf(path string) string {
	path = parameters.ReplaceAllString(path, "")
	if elsewhere.MatchString(path) {
		return "/"
	}
	return name.ReplaceAllString(path, "$1/…")
}

// axe looks for what keeps people out; with rules, for those alone.
func (p *person) axe(script []byte, page, how string, rules ...string) {
	p.t.Helper()
	what := `runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]`
	if len(rules) > 0 {
		what = `runOnly: { type: "rule", values: ["` + strings.Join(rules, `", "`) + `"] }`
	}
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience) // some pages are long
	defer cancel()
	if !look[bool](p, "window.axe !== undefined") {
		if err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := chromedp.Evaluate[chromedp.Void](string(script))(ctx, t)
			return err
		})); err != nil {
			p.t.Fatalf("%s, %s: %v", page, how, err)
		}
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]barrier](fmt.Sprintf("axe.run({ %s, resultTypes: ['violations'] }).then((r) => r.violations)", what), chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s, %s: %v", page, how, err)
	}
	for _, v := range found {
		for _, n := range v.Nodes[:min(len(v.Nodes), 2)] {
			p.t.Errorf("%s, %s: %s: %s, %d times: %.200s: %.300s", page, how, v.ID, v.Help, len(v.Nodes), n.HTML, n.Failure)
		}
	}
}

// wide and narrow look at the page on a screen and on a telephone: nothing of it is beyond the right edge.
func (p *person) wide(page string) { p.t.Helper(); p.fits(page, 1280, 900) }

func (p *person) narrow(page string) { p.t.Helper(); p.fits(page, 390, 844) }

func (p *person) fits(page string, width, height int64) {
	p.t.Helper()
	p.do("hold it differently", chromedp.EmulateViewport(width, height))
	p.until("the page to be as wide", fmt.Sprintf("innerWidth === %d", width))
	if over := look[[]string](p, `document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
		[...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, nav, .skip") && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => e.outerHTML.slice(0, 120))`); len(over) > 0 {
		p.t.Errorf("%s is wider than %d: %q", page, width, over[:min(len(over), 4)])
	}
}
