package server_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// withOrganisation gives an instance a sign-in at that issuer.
func withOrganisation(t *testing.T, l server.Layout, issuer string) {
	t.Helper()
	if _, err := server.SetOIDC(l, &server.OIDC{Issuer: issuer, Client: "hallmark", Name: "Acme"}, []byte("secret\n")); err != nil {
		t.Fatal(err)
	}
}

func admin(t *testing.T, l server.Layout, api string) *client.Client {
	t.Helper()
	token, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	return client.New(api, strings.TrimSpace(string(token)), nil)
}

// A person signs in with the organisation, in a browser, with the console's own rules for pages; and confirms that way too.
func TestChromiumSignsInWithTheOrganisation(t *testing.T) {
	b := browse(t)
	var provides http.Handler
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provides.ServeHTTP(w, r) }))
	t.Cleanup(p.Close)
	l := initialise(t)
	withOrganisation(t, l, p.URL)
	api, _ := start(t, l)
	console := strings.Replace(api, "127.0.0.1", "localhost", 1)
	provides = exampleop.SetupServer(p.URL, storage.NewStorageWithClients(storage.NewUserStore(p.URL), map[string]*storage.Client{
		"hallmark": storage.WebClient("hallmark", "secret", console+"/auth/oidc/callback"),
	}), slog.New(slog.DiscardHandler), false)
	cl := admin(t, l, api)
	if _, err := cl.Token(t.Context(), httpapi.TokenSpec{Caller: "person:olga", Kind: access.Person, Roles: []access.Role{access.Viewer}, Use: signin.UseToken, Seconds: 60}); err != nil {
		t.Fatal(err)
	}
	throughProvider := []chromedp.Action[chromedp.Void]{
		chromedp.WaitVisible(chromedp.CSS("#username")), chromedp.SendKeys(chromedp.CSS("#username"), "test-user2"),
		chromedp.SendKeys(chromedp.CSS("#password"), "verysecure"), chromedp.Click(chromedp.CSS("button")),
	}
	button := chromedp.CSS(`form[action="/auth/oidc/begin"] button`)
	b.do("sign in, and be nobody here", append(append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(console + "/login"), chromedp.Click(button)}, throughProvider...),
		chromedp.WaitVisible(chromedp.CSS("p.problem")))...)
	if s := b.text("p.problem"); !strings.Contains(s, "nobody here is bound") {
		t.Errorf("who is nobody here is told %q", s)
	}
	if _, err := cl.BindIdentity(t.Context(), "person:olga", "id2", ""); err != nil {
		t.Fatal(err)
	}
	b.do("sign in", append(append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(console + "/login"), chromedp.Click(button)}, throughProvider...),
		chromedp.WaitVisible(chromedp.CSS("nav")))...)
	if s := b.text(".caller"); !strings.Contains(s, "person:olga") {
		t.Errorf("signed in as %q", s)
	}
}

// An instance starts without its organisation's sign-in, and every other way in works meanwhile.
func TestAProviderThatIsDownStopsNothingElse(t *testing.T) {
	l := initialise(t)
	withOrganisation(t, l, "http://127.0.0.1:1")
	api, _ := start(t, l)
	if _, err := admin(t, l, api).Self(t.Context()); err != nil {
		t.Errorf("a token: %v", err)
	}
	if got := status(t, http.DefaultClient, api+"/login"); got != http.StatusOK {
		t.Errorf("the sign-in page: %d", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.Replace(api, "127.0.0.1", "localhost", 1)+"/auth/oidc/begin", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Refresh") != "0; url=/login?problem=unavailable" {
		t.Errorf("the organisation's: %d, on to %q, %v", resp.StatusCode, resp.Header.Get("Refresh"), err)
	}
}

// The client's secret is in no file that anybody else reads, and not in config.json, which people show each other.
func TestWhereTheClientsSecretIs(t *testing.T) {
	l := initialise(t)
	withOrganisation(t, l, "https://login.example.com")
	info, err := os.Stat(l.OIDCSecret())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	data, err := os.ReadFile(l.Config())
	var cfg map[string]any
	if err != nil || json.Unmarshal(data, &cfg) != nil || cfg["oidc"] == nil || strings.Contains(string(data), `"secret"`) {
		t.Errorf("config.json: %s, %v", data, err)
	}
}
