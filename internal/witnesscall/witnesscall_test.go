package witnesscall_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/witnesscall"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

func key(name string, typ, b byte) ledger.VerifierKey {
	return ledger.VerifierKey{Name: name, Type: typ, Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)).Public().(ed25519.PublicKey)}
}

var keys = []ledger.VerifierKey{key("w.example", ledger.TypeCosignature, 1)}

// call asks a witness that answers so.
func call(t *testing.T, answer http.HandlerFunc) ([]byte, error) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	w, err := witnesscall.New(s.URL+"/prefix/", keys)
	if err != nil {
		t.Fatal(err)
	}
	return w.Cosign(t.Context(), 5, [][32]byte{{7}}, []byte("a note\n"))
}

func TestItAsksAsTheProtocolSays(t *testing.T) {
	var method, path string
	var req witness.Request
	out, err := call(t, func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 1000)
		n, _ := r.Body.Read(body)
		req, _ = witness.ParseRequest(body[:n])
		method, path = r.Method, r.URL.Path
		_, _ = w.Write([]byte("lines\n"))
	})
	if err != nil || string(out) != "lines\n" || method != "POST" || path != "/prefix/add-checkpoint" {
		t.Errorf("%s %s: %q, %v", method, path, out, err)
	}
	if req.Old != 5 || len(req.Proof) != 1 || req.Proof[0] != [32]byte{7} || string(req.Note) != "a note\n" {
		t.Errorf("%+v", req)
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	status := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		size   uint64 // when it is another old size
		forked bool
		says   string
	}{
		{"the size it remembers", status(409, witness.SizeType, "42\n"), 42, false, ""},
		{"a conflict without a size", status(409, "", ""), 0, true, "no size"},
		{"a size that is none", status(409, witness.SizeType, "042\n"), 0, true, "no size"},
		{"a size of another type", status(409, "text/plain", "42\n"), 0, true, "no size"},
		{"another history", status(422, "", "bad proof"), 0, true, "bad proof"},
		{"an unknown log", status(404, "", ""), 0, false, "hallmark log keys"},
		{"another key", status(403, "", ""), 0, false, "another key"},
		{"too often", status(429, "", ""), 0, false, "asked again"},
		{"out of order", status(500, "", "\x1b[31mred\x00"), 0, false, "([31mred): ask its operator"},
		{"a redirection, which is not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 0, false, "307"},
		{"an answer without end", func(w http.ResponseWriter, _ *http.Request) {
			for range 2 * witness.MaxRequest / 1024 {
				_, _ = w.Write(make([]byte, 1024))
			}
		}, 0, false, "larger than"},
		{"an answer that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("short"))
		}, 0, false, "broke off"},
		{"nothing", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, false, "cannot be reached"},
	} {
		out, err := call(t, c.answer)
		if err == nil || out != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q, %v", c.name, out, err)
		}
		var old *ledger.OldSizeError
		if errors.As(err, &old) != (c.size > 0) || old != nil && old.Size != c.size {
			t.Errorf("%s: size %v", c.name, err)
		}
		if errors.Is(err, ledger.ErrInconsistent) != c.forked {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAWitnessThatCannotBeAskedIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		url  string
		keys []ledger.VerifierKey
	}{
		"no url":                {"", keys},
		"another scheme":        {"ftp://w.example", keys},
		"no host":               {"https:///x", keys},
		"a password in the url": {"https://a:b@w.example", keys},
		"a query":               {"https://w.example?x", keys},
		"no key":                {"https://w.example", nil},
		"a log's key":           {"https://w.example", []ledger.VerifierKey{key("w.example", ledger.TypeEd25519, 1)}},
		"keys of two names":     {"https://w.example", append([]ledger.VerifierKey{key("v.example", ledger.TypeMLDSA44, 1)}, keys...)},
		"two of one kind":       {"https://w.example", append([]ledger.VerifierKey{key("w.example", ledger.TypeCosignature, 2)}, keys...)},
	} {
		if _, err := witnesscall.New(c.url, c.keys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
