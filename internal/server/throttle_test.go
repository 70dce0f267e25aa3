package server_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/client"
)

// At every way in, who hammers is told to wait; a program whose token is good goes on meanwhile, though it has the same address.
func TestHammeringIsThrottledAtEveryDoor(t *testing.T) {
	for name, hammer := range map[string]struct{ method, path, body string }{
		"the API":           {http.MethodGet, "/api/v1/me", ""},
		"the sign-in page":  {http.MethodPost, "/login", "token=hmk_wrong"},
		"a link":            {http.MethodPost, "/login", "once=hmk_wrong"},
		"passkeys, begun":   {http.MethodPost, "/auth/passkey/login/begin", ""},
		"passkeys, ended":   {http.MethodPost, "/auth/passkey/login/finish", "{}"},
		"no session at all": {http.MethodGet, "/auth/passkeys", ""},
	} {
		l := initialise(t)
		api, _ := start(t, l)
		token, err := os.ReadFile(l.AdminToken())
		if err != nil {
			t.Fatal(err)
		}
		c := client.New(api, strings.TrimSpace(string(token)), nil)
		if _, err := c.Self(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen := map[int]int{}
		for range 50 {
			req, err := http.NewRequestWithContext(t.Context(), hammer.method, api+hammer.path, strings.NewReader(hammer.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Authorization", "Bearer hmk_wrong")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			seen[resp.StatusCode]++
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s: not told how long to wait", name)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		if seen[http.StatusTooManyRequests] == 0 {
			t.Errorf("%s: %v", name, seen)
		}
		if _, err := c.Self(t.Context()); err != nil {
			t.Errorf("%s: a good token meanwhile: %v", name, err)
		}
		if got := status(t, http.DefaultClient, api+"/login"); got != http.StatusOK {
			t.Errorf("%s: the sign-in page meanwhile: %d", name, got)
		}
	}
}

// endless is a body that never ends, and counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	if e.read > 64<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

// Nobody has the server read more than a little before it knows who they are.
func TestABodyBeforeItIsKnownWhoAsks(t *testing.T) {
	api, _ := start(t, initialise(t))
	for _, path := range []string{"/api/v1/tokens", "/api/v1/products/pump/artifacts/app", "/login", "/auth/passkey/login/finish", "/auth/logout"} {
		body := &endless{}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
			if resp.StatusCode < 400 && path != "/auth/logout" {
				t.Errorf("%s: %d", path, resp.StatusCode)
			}
		}
		if body.read > 32<<20 { // what it does not read is still in the network's buffers
			t.Errorf("%s: %d bytes were read (%v)", path, body.read, err)
		}
	}
}

// Where the console has no name there are no passkeys, and one can sign out all the same.
func TestSigningOutOfAConsoleWithoutAName(t *testing.T) {
	l := initialise(t)
	edit(t, l, `"localhost",`, ``)
	api, _ := start(t, l)
	for path, want := range map[string]int{"/auth/logout": http.StatusNoContent, "/auth/passkey/login/begin": http.StatusNotFound} {
		resp, err := http.Post(api+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %d, %v; want %d", path, resp.StatusCode, err, want)
		}
	}
}
