package server_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// browser is Chromium with an authenticator, for as long as the test runs.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the browser in it
}

func browse(t *testing.T) browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b := browser{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first use
		t.Fatalf("start chromium: %v", err)
	}
	b.do("start chromium", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		if _, err := chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		_, err := chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}})
		return err
	}))
	return b
}

// do does what a person would.
func (b browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v, at %s: %.1000s", what, err, b.at(), b.text("body"))
	}
}

func (b browser) text(css string) string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(css)))
	if err != nil {
		return err.Error()
	}
	return s
}

func (b browser) at() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Location())
	if err != nil {
		return err.Error()
	}
	return s
}

// signIn starts an instance and signs in as its administrator, by a link that works once.
func (b browser) signIn() (console string) {
	b.t.Helper()
	l := initialise(b.t)
	api, _ := start(b.t, l)
	console = strings.Replace(api, "127.0.0.1", "localhost", 1)
	link, err := server.Recover(b.t.Context(), l, "person:admin")
	if err != nil {
		b.t.Fatal(err)
	}
	_, code, _ := strings.Cut(link, "once=")
	b.do("open the link", chromedp.Navigate(console+"/login?once="+code), chromedp.Click(chromedp.CSS("#link-login")),
		chromedp.WaitVisible(chromedp.CSS("nav")))
	return console
}

// A person signs in by the link that init prints, adds a passkey, signs out, and is in again with nothing but it.
func TestChromiumSignsInWithAPasskey(t *testing.T) {
	b := browse(t)
	console := b.signIn()
	b.do("add a passkey",
		chromedp.Navigate(console+"/account"), chromedp.WaitEnabled(chromedp.CSS("#passkey-add")),
		chromedp.SendKeys(chromedp.CSS("#passkey-label"), "blue key"), chromedp.Click(chromedp.CSS("#passkey-add")),
		chromedp.WaitVisible(chromedp.CSS("#passkey-list tr")))
	if s := b.text("#passkey-list"); !strings.Contains(s, "blue key") {
		t.Errorf("the passkeys: %q", s)
	}
	b.do("sign out", chromedp.Click(chromedp.CSS("#logout")), chromedp.WaitVisible(chromedp.CSS("#passkey-login button")))
	b.do("look at devices, signed out", chromedp.Navigate(console+"/devices"), chromedp.WaitVisible(chromedp.CSS("form")))
	if at := b.at(); !strings.Contains(at, "/login") {
		t.Errorf("signed out, and at %s", at)
	}
	b.do("sign in with the passkey",
		chromedp.Navigate(console+"/login"), chromedp.WaitVisible(chromedp.CSS("#passkey-login button")),
		chromedp.Click(chromedp.CSS("#passkey-login button")), chromedp.WaitVisible(chromedp.CSS("nav")))
	if s := b.text(".caller"); !strings.Contains(s, "person:admin") {
		t.Errorf("signed in as %q", s)
	}
}

// A person who may puts a statement on file, and reads on the same page that the control is met by it.
func TestChromiumPutsAStatementOnFile(t *testing.T) {
	b := browse(t)
	l := initialise(t)
	api, _ := start(t, l)
	admin, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.New(api, strings.TrimSpace(string(admin)), nil).Token(t.Context(), httpapi.TokenSpec{
		Caller: "person:sue", Kind: access.Person, Roles: []access.Role{access.Security}, Use: signin.UseToken, Seconds: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	console := strings.Replace(api, "127.0.0.1", "localhost", 1)
	b.do("sign in", chromedp.Navigate(console+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=token]"), token),
		chromedp.Click(chromedp.CSS("form[action='/login'] button")), chromedp.WaitVisible(chromedp.CSS("nav")))
	b.do("find the control", chromedp.Navigate(console+"/compliance?framework=etsi-en-303-645"), chromedp.WaitVisible(chromedp.CSS("main")),
		chromedp.Click(chromedp.CSS("a[href*='/5.12-1?']")), chromedp.WaitEnabled(chromedp.CSS("button.act")))
	if s := b.text(".headline"); !strings.Contains(s, "Unknown") {
		t.Errorf("before: %q", s)
	}
	b.do("state", chromedp.Click(chromedp.CSS("button.act")), chromedp.SendKeys(chromedp.CSS("textarea[name=field-text]"), "Two steps."),
		chromedp.Click(chromedp.CSS("dialog button.do")), chromedp.WaitVisible(chromedp.CSS(".headline.good")))
	if s := b.text("main"); !strings.Contains(s, "Two steps.") || !strings.Contains(s, "person:sue") || !strings.Contains(s, "Hallmark cannot measure it") {
		t.Errorf("after: %q", s)
	}
}

// axeScript is axe-core (https://github.com/dequelabs/axe-core), which scripts/setup-test.sh fetches.
const axeScript = "../../.cache/axe.min.js"

// No page has a barrier that axe-core finds (WCAG 2.2 AA), in light and dark, and on a phone.
func TestChromiumFindsNoBarriers(t *testing.T) {
	axe, err := os.ReadFile(axeScript)
	if err != nil {
		t.Skip("axe-core is not installed: scripts/setup-test.sh fetches it")
	}
	b := browse(t)
	console := b.signIn()
	type violation struct {
		ID    string `json:"id"`
		Help  string `json:"help"`
		Nodes []struct {
			HTML string `json:"html"`
		} `json:"nodes"`
	}
	for _, page := range []string{
		"/", "/devices", "/devices?state=active", "/rollouts", "/releases", "/findings", "/cases", "/orders", "/certificates", "/compliance", "/compliance?standing=met", "/compliance/etsi-en-303-645/5.3-13", "/streams", "/ledger",
		"/ledger/control/0", "/platform", "/account", "/genuine", "/devices/nothing",
	} {
		for _, scheme := range []string{"light", "dark"} {
			b.do("open "+page, chromedp.EmulateViewport(map[string]int64{"light": 1280, "dark": 390}[scheme], 900),
				chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
					_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
						Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
					})
					return err
				}), chromedp.Navigate(console+page), chromedp.WaitVisible(chromedp.CSS("main")))
			ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
			found, err := chromedp.Run(ctx, chromedp.Evaluate[[]violation](string(axe)+`;
				axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(r => r.violations)`, chromedp.EvalAwaitPromise))
			cancel()
			if err != nil {
				t.Fatalf("%s, %s: %v", page, scheme, err)
			}
			for _, v := range found {
				html := ""
				if len(v.Nodes) > 0 {
					html = v.Nodes[0].HTML
				}
				t.Errorf("%s, %s: %s: %s, %d times: %.300s", page, scheme, v.ID, v.Help, len(v.Nodes), html)
			}
		}
	}
}
