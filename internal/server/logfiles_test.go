package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/internal/blob/s3"
	"github.com/hallmark-iot/hallmark/internal/blob/s3/s3test"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// get asks for a file and gives status, header and content.
func get(t *testing.T, method, url string, header ...string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

func TestTheLogsFilesAreServedForCaches(t *testing.T) {
	l := initialise(t)
	api, _ := start(t, l)
	size := strings.Split(string(must(t, api+"/log/control/checkpoint")), "\n")[1]
	for path, want := range map[string]struct{ media, cache string }{
		"checkpoint":                 {"text/plain; charset=utf-8", "no-cache"},
		"tile/0/000.p/" + size:       {"application/octet-stream", "public, max-age=31536000, immutable"},
		"tile/entries/000.p/" + size: {"application/octet-stream", "public, max-age=31536000, immutable"},
	} {
		url := api + "/log/control/" + path
		code, h, body := get(t, http.MethodGet, url)
		if code != 200 || h.Get("Content-Type") != want.media || h.Get("Cache-Control") != want.cache || h.Get("Access-Control-Allow-Origin") != "*" || len(body) == 0 {
			t.Errorf("%s: %d, %v", path, code, h)
		}
		if code, h, none := get(t, http.MethodHead, url); code != 200 || h.Get("Content-Length") != fmt.Sprint(len(body)) || len(none) != 0 {
			t.Errorf("HEAD %s: %d, %v", path, code, h)
		}
		if code, _, none := get(t, http.MethodGet, url, "If-None-Match", h.Get("ETag")); code != http.StatusNotModified || len(none) != 0 {
			t.Errorf("%s again: %d", path, code)
		}
		if code, _, part := get(t, http.MethodGet, url, "Range", "bytes=1-3"); code != http.StatusPartialContent || string(part) != string(body[1:4]) {
			t.Errorf("%s in parts: %d %q", path, code, part)
		}
		if code, h, _ := get(t, http.MethodOptions, url); code != http.StatusNoContent || h.Get("Access-Control-Allow-Methods") == "" {
			t.Errorf("OPTIONS %s: %d, %v", path, code, h)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			if code, h, _ := get(t, method, url); code != http.StatusMethodNotAllowed || h.Get("Allow") == "" {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	if code, h, _ := get(t, http.MethodGet, api+"/log/control/checkpoint"); code != 200 || h.Get("ETag") == "" {
		t.Error("the checkpoint has no ETag")
	}
}

func must(t *testing.T, url string) []byte {
	t.Helper()
	code, _, body := get(t, http.MethodGet, url)
	if code != 200 {
		t.Fatalf("%s: %d", url, code)
	}
	return body
}

func TestNothingElseOfTheDirectoryIsServed(t *testing.T) {
	l := initialise(t)
	for _, name := range []string{".new-1", "tile/0/.new-1", "secret", "tile/0/0000"} {
		path := filepath.Join(l.Logs(), "control", filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	api, _ := start(t, l)
	for _, path := range []string{
		"", "/", "/control", "/control/", "/control/tile", "/control/tile/", "/control/tile/0", "/control/tile/0/", "/control/tile/0/000.p/", "/control/secret",
		"/control/signed", "/control/.new-1", "/control/tile/0/.new-1", "/control/tile/0/0000", "/control/%2e%2e/trust.json", "/control/..%2ftrust.json",
		"/control/tile%2f0%2f000", "/trust.json", "/other/checkpoint", "/control/checkpoint/", "/control/CHECKPOINT", "/control/tile/entries/999", "/control/evidence",
	} {
		code, h, body := get(t, http.MethodGet, api+"/log"+path)
		if code == 200 || strings.Contains(string(body), "x\n") && code != 404 {
			t.Errorf("%q: %d %q", path, code, body)
		}
		if code == 404 && strings.HasPrefix(path, "/control/") && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: that it is not there may be remembered: %v", path, h)
		}
	}
}

// reader is a reader of x/mod's kind, over HTTP. It falls back to the full tile where a partial one is gone, as c2sp.org/tlog-tiles has it.
type reader struct {
	t         *testing.T
	base      string
	fallbacks *int
}

func (reader) Height() int { return 8 }

func (reader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r reader) ReadTiles(ts []tlog.Tile) (out [][]byte, err error) {
	for _, tile := range ts {
		code, _, data := get(r.t, http.MethodGet, r.base+"/tile/"+tile.Path()[len("tile/8/"):])
		if code == http.StatusNotFound && tile.W < 256 {
			full := tile
			full.W = 256
			*r.fallbacks++
			code, _, data = get(r.t, http.MethodGet, r.base+"/tile/"+full.Path()[len("tile/8/"):])
			data = data[:tile.W*tlog.HashSize]
		}
		if code != 200 {
			return nil, fmt.Errorf("%s: %d", tile.Path(), code)
		}
		out = append(out, data)
	}
	return out, nil
}

// The public client of the Go checksum database's kind follows the log over HTTP through its whole life, by checkpoints old and new.
func TestAThirdPartyClientFollowsTheLogOverHTTP(t *testing.T) {
	l := initialise(t)
	api, _ := start(t, l)
	token, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	base := api + "/log/control"
	var trust struct {
		Logs []struct {
			Origin string `json:"origin"`
			Key    []byte `json:"key"`
		} `json:"logs"`
	}
	data, err := os.ReadFile(filepath.Join(l.Logs(), "trust.json"))
	if err == nil {
		err = json.Unmarshal(data, &trust)
	}
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(trust.Logs[0].Origin, trust.Logs[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	var seen []tlog.Tree
	var fallbacks int
	latest := func() tlog.Tree {
		t.Helper()
		n, err := note.Open(must(t, base+"/checkpoint"), note.VerifierList(verifier))
		if err != nil {
			t.Fatal(err)
		}
		tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + n.Text[len(trust.Logs[0].Origin)+1:]))
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	begun := latest().N
	for len(seen) == 0 || seen[len(seen)-1].N < 300 {
		for i := range 40 { // each a fact
			issue(t, api, strings.TrimSpace(string(token)), fmt.Sprintf("machine:m%d-%d", len(seen), i))
		}
		tree := latest()
		for tree.N < begun+int64(40*(len(seen)+1)) { // published by and by
			tree = latest()
		}
		seen = append(seen, tree)
		for _, old := range seen {
			hr := tlog.TileHashReader(tree, reader{t, base, &fallbacks})
			proof, err := tlog.ProveTree(tree.N, old.N, hr)
			if err != nil {
				t.Fatalf("from %d to %d: %v", old.N, tree.N, err)
			}
			if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
				t.Fatalf("from %d to %d: %v", old.N, tree.N, err)
			}
			byOld := tlog.TileHashReader(old, reader{t, base, &fallbacks})
			if _, err := byOld.ReadHashes([]int64{tlog.StoredHashIndex(0, 0), tlog.StoredHashIndex(0, old.N-1)}); err != nil {
				t.Fatalf("by the checkpoint of %d, now that there are %d: %v", old.N, tree.N, err)
			}
		}
	}
	if fallbacks == 0 {
		t.Error("no partial tile was gone: nothing is shown")
	}
}

func issue(t *testing.T, api, token, member string) {
	t.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"caller":%q,"kind":"machine","roles":["auditor"],"use":"token","seconds":3600}`, member))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api+"/api/v1/tokens", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(resp.Body)
	if resp.Body.Close(); resp.StatusCode/100 != 2 {
		t.Fatalf("token of %s: %d %s", member, resp.StatusCode, said)
	}
}

// curl is what people have at hand.
func TestCurlReadsTheLog(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	l := initialise(t)
	api, _ := start(t, l)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	etags := filepath.Join(t.TempDir(), "etag")
	if said := run("--etag-save", etags, api+"/log/events/checkpoint"); !strings.HasPrefix(said, "hallmark.local/events\n") {
		t.Errorf("%q", said)
	}
	if said := run("--etag-compare", etags, "-w", "%{http_code}", api+"/log/events/checkpoint"); said != "304" {
		t.Errorf("again: %q", said)
	}
	if said := run("-I", api+"/log/events/tile/0/000.p/1"); !strings.Contains(said, "immutable") || !strings.Contains(said, "Content-Length: 32\r\n") {
		t.Errorf("%q", said)
	}
	if said := run("-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", api+"/log/events/../../config.json"); said == "200" {
		t.Error("curl left the log's directory")
	}
}

// Published to a bucket as well, the log can be read, mirrored and replayed from there when the directory is gone.
func TestALogInABucket(t *testing.T) {
	bucket, query := s3test.Start(t)
	l := initialise(t)
	at := bucket + "/acme" + query
	edit(t, l, `"virtual_ok": true`, fmt.Sprintf(`"virtual_ok": true, "export": ["files", %q]`, at))
	old := filepath.Join(t.TempDir(), "old.db")
	data, err := os.ReadFile(l.Database())
	if err == nil {
		err = os.WriteFile(old, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Recover(t.Context(), l, "person:eve"); err != nil { // a fact
		t.Fatal(err)
	}
	served(t, l)
	trustFile, err := os.ReadFile(filepath.Join(l.Logs(), "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := audit.DecodeTrust(trustFile)
	if err != nil {
		t.Fatal(err)
	}
	source, err := server.LogSource(at)
	if err != nil {
		t.Fatal(err)
	}
	for i, log := range trust.Logs {
		if _, err := audit.Verify(t.Context(), trust.Policy(i), source(log.Name)); err != nil {
			t.Fatalf("%s: %v", log.Name, err)
		}
	}
	if err := errors.Join(os.RemoveAll(l.Logs()), os.RemoveAll(filepath.Join(l.Dir, "witness")), os.Rename(old, l.Database())); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, l); err == nil || !strings.Contains(err.Error(), "s3://logs/acme/log/control") {
		t.Fatalf("only the bucket remembers: %v", err)
	}
	rec, err := server.RecoverLog(t.Context(), l, trust, source, true, false)
	if err != nil || rec.Logs[0].Missing == 0 {
		t.Fatalf("%+v, %v", rec, err)
	}
	served(t, l)
	b, err := s3.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	if note, err := b.Sub("log").Sub("control").Get(t.Context(), "checkpoint"); err != nil || note == nil {
		t.Errorf("%q, %v", note, err)
	}
}

// served runs the instance until it answers, and ends it in good order.
func served(t *testing.T, l server.Layout) {
	t.Helper()
	keys, err := soft.Open(l.Keys(), "pass")
	if err != nil {
		t.Fatal(err)
	}
	inst, err := server.Open(t.Context(), l, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := errors.Join(inst.Run(ctx, func(string, string) { cancel() }), inst.Close()); err != nil {
		t.Fatal(err)
	}
}
