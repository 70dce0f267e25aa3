package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long a person waits for something before it counts as not coming.
const patience = 30 * time.Second

// chromium starts the browser that everybody's windows are in, for as long as the test runs.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first use
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// person is somebody at a browser of their own, with an authenticator.
type person struct {
	t       *testing.T
	ctx     context.Context //nolint:containedctx // chromedp keeps the window in it
	console string

	mu    sync.Mutex
	noise []string // what the browser complained about; guarded by mu
}

// visitor opens a browser that knows nobody. What its console is told ends in the test's result.
func (w *world) visitor(t *testing.T) *person {
	t.Helper()
	ctx, cancel := chromedp.NewContext(w.browser, chromedp.WithNewBrowserContext())
	p := &person{t: t, ctx: ctx, console: w.console()}
	messages := chromedp.Console(ctx)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for m, err := range messages {
			if err != nil {
				return
			}
			p.note(m)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-heard
		for _, n := range p.noise {
			t.Errorf("the browser's console: %s", n)
		}
	})
	p.do("open a browser", chromedp.EmulateViewport(1280, 900), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		if _, err := chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}})
		return err
	}))
	return p
}

// signedIn is a visitor who has signed in with an access token.
func (w *world) signedIn(t *testing.T, name string) *person {
	t.Helper()
	p := w.visitor(t)
	p.visit("/login")
	p.fill("Access token", w.tokens[name])
	p.press("Sign in with the token")
	p.sees("person:" + name)
	return p
}

// byLink signs in with a link, once.
func (w *world) byLink(t *testing.T, name, link string) *person {
	t.Helper()
	p := w.visitor(t)
	p.visit(link)
	p.press("Sign in")
	p.sees("person:" + name)
	return p
}

// note keeps what a page must not cause. A denial, or a page that is not there, is a line in the console too, and is what the
// person is told.
func (p *person) note(m chromedp.ConsoleMessage) {
	if m.Source == "network" && (strings.Contains(m.URL, "/api/v1/") || strings.Contains(m.Text, "403 (Forbidden)") || strings.HasSuffix(m.URL, "/devices/nothing")) || m.Type != "error" && m.Type != "warning" && !m.IsException() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noise = append(p.noise, fmt.Sprintf("%s %s, at %s:%d", m.Source, m, m.URL, m.Line+1))
}

// heard takes from what the browser complained about what it was to complain about.
func (p *person) heard(words string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.noise)
	if p.noise = slices.DeleteFunc(p.noise, func(s string) bool { return strings.Contains(s, words) }); len(p.noise) == n {
		p.t.Errorf("the browser did not complain of %q: %q", words, p.noise)
	}
}

// do does what a person would.
func (p *person) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.lost(what, err)
	}
}

// lost ends the test where the person is.
func (p *person) lost(what string, err error) {
	p.t.Helper()
	p.t.Fatalf("%s: %v, at %s:\n%.3000s", what, err, look[string](p, "location.href"), look[string](p, "document.body.innerText"))
}

// eyes are how scripts find what a person would: by its words, when it is to be seen, in the dialog if there is one.
const eyes = `
	const clean = (s) => (s || "").trim().replace(/\s+/g, " ");
	const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
	const top = () => document.querySelector("dialog[open]") || document;
	const parts = () => (top() === document ? [document.getElementById("main"), document] : [top()]);
	const named = (text) => parts().flatMap((p) => [...p.querySelectorAll("button, a, summary, label.check")]).find((e) => shown(e) && !e.disabled && clean(e.innerText) === text);
	const field = (label) => { const l = [...top().querySelectorAll("label")].find((l) => shown(l) && clean(l.innerText).startsWith(label)); return l && l.querySelector("input, select, textarea"); };
	const seen = (css) => [...top().querySelectorAll(css)].find((e) => shown(e) && !e.disabled);
	const text = () => clean(top() === document ? document.body.innerText : top().innerText);
`

func script(expression string) string { return "(() => {" + eyes + "return " + expression + ";})()" }

// look evaluates once; the zero value when the page is just going.
func look[T any](p *person, expression string) T {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script(expression)))
	if err != nil {
		var none T
		return none
	}
	return v
}

// until waits for what an expression says; also across pages.
func (p *person) until(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script("Boolean("+expression+")")))
		if ok && err == nil {
			return
		}
		select {
		case <-ctx.Done():
			p.lost("wait for "+what, ctx.Err())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// sees waits until the page, or the dialog over it, says all of these.
func (p *person) sees(words ...string) {
	p.t.Helper()
	for _, word := range words {
		p.until(fmt.Sprintf("the words %q", word), "text().includes("+quote(word)+")")
	}
}

// notOffered says what the person has no button for.
func (p *person) notOffered(words string) {
	p.t.Helper()
	if look[bool](p, "Boolean(named("+quote(words)+"))") {
		p.t.Errorf("%q is offered, at %s", words, look[string](p, "location.href"))
	}
}

func (p *person) visit(path string) {
	p.t.Helper()
	p.do("open "+path, chromedp.Navigate(p.console+path), chromedp.WaitVisible(chromedp.CSS("main")))
}

// at waits until the address begins so.
func (p *person) at(path string) {
	p.t.Helper()
	p.until("the page "+path, "location.pathname.startsWith("+quote(path)+") && document.readyState === 'complete'")
}

// press clicks with the mouse on what bears these words: it has to be there, enabled, and not under something else.
func (p *person) press(words string) {
	p.t.Helper()
	p.click("press "+words, "named("+quote(words)+")")
}

// follow clicks on the first that a selector finds.
func (p *person) follow(css string) {
	p.t.Helper()
	p.click("follow "+css, "seen("+quote(css)+")")
}

func (p *person) click(what, element string) {
	p.t.Helper()
	const where = `(() => {
		const e = %s;
		if (!e) return null;
		e.scrollIntoView({ block: "center" });
		const r = e.getClientRects()[0], x = r.x + r.width / 2, y = r.y + r.height / 2;
		return e.contains(document.elementFromPoint(x, y)) ? { x, y } : null;
	})()`
	p.until(what, fmt.Sprintf(where, element))
	at := look[*struct {
		X float64 `json:"x"`
		Y float64 `json:"y"`
	}](p, fmt.Sprintf(where, element))
	if at == nil {
		p.lost(what, context.Canceled)
	}
	p.do(what, chromedp.MouseClickXY(at.X, at.Y))
}

// fill types into the field of this label, or chooses there.
func (p *person) fill(label, value string) {
	p.t.Helper()
	p.until("the field "+label, "field("+quote(label)+")")
	kind := look[string](p, `(() => { const e = field(`+quote(label)+`); e.focus(); if (e.select) e.select(); return e.type; })()`)
	if kind == "date" || strings.HasPrefix(kind, "select") { // how these are typed in is a matter of the browser's language
		p.until("to choose "+value, `(() => {
			const e = field(`+quote(label)+`), want = `+quote(value)+`;
			e.value = [...(e.options || [])].find((o) => o.text.includes(want))?.value ?? want;
			e.dispatchEvent(new Event("change", { bubbles: true }));
			return e.value;
		})()`)
		return
	}
	p.do("type", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, input.InsertText, input.InsertTextParams{Text: value})
		return err
	}))
	p.until(label+" to hold what was typed", "field("+quote(label)+").value === "+quote(value))
}

// typesWhatIsAsked types the name that a dialog wants to be sure.
func (p *person) typesWhatIsAsked() {
	p.t.Helper()
	p.fill("Type ", strings.TrimSuffix(strings.TrimPrefix(look[string](p, `clean(seen("#confirm-typed span").innerText)`), "Type "), " to go on"))
}

// asked waits for the dialog, and closed for its end.
func (p *person) asked(title string) {
	p.t.Helper()
	p.until("the dialog "+title, `seen("#confirm-title")?.innerText.includes(`+quote(title)+`)`)
}

func (p *person) closed() {
	p.t.Helper()
	p.until("the dialog to close", `!document.querySelector("dialog[open]")`)
}

// key presses a key, as often as it is given.
func (p *person) key(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		p.do("press a key", chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until the focus is on what bears these words.
func (p *person) tabTo(words string) {
	p.t.Helper()
	for range 120 {
		if look[bool](p, `clean(document.activeElement.innerText || document.activeElement.closest("label")?.innerText).startsWith(`+quote(words)+`) && document.activeElement !== document.body`) {
			return
		}
		p.key(kb.Tab)
	}
	p.lost("reach "+words+" by keyboard", context.Canceled)
}

// stays marks the page, so that stayed can say whether it is the same still.
func (p *person) stays() {
	p.t.Helper()
	p.until("a mark", "(window.stayed = true)")
}

func (p *person) stayed() {
	p.t.Helper()
	if !look[bool](p, "window.stayed === true") {
		p.t.Error("the page was loaded again: it should change by itself")
	}
}

// scheme asks for a light or dark page.
func (p *person) scheme(name string) {
	p.t.Helper()
	p.do("look at it in "+name, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	}))
}

// addPasskey adds one on the account page.
func (p *person) addPasskey(label string) {
	p.t.Helper()
	p.visit("/account")
	p.fill("Name of a new passkey", label)
	p.press("Add a passkey")
	p.until("the passkey", `seen("#passkey-list table")?.innerText.includes(`+quote(label)+`)`)
}

// quote writes a string as script does.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(b)
}
