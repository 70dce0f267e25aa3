package cli_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/internal/cli"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

type signer struct{ ed25519.PrivateKey }

func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.PrivateKey, text), nil }
func (s signer) Public() ed25519.PublicKey        { return s.PrivateKey.Public().(ed25519.PublicKey) }

func key(b byte) signer {
	return signer{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

// trust is a trust file that believes two witnesses.
func trust(origin string, log byte) string {
	vkey := func(name string, b byte) string { return ledger.Ed25519Cosigner(name, key(b)).String() }
	b64 := func(b byte) string { return base64.StdEncoding.EncodeToString(key(b).Public()) }
	return fmt.Sprintf(`{"logs":[{"name":"events","origin":%q,"key":%q}],"witnesses":[%q,%q],"quorum":2}`, origin, b64(log), vkey("wa", 2), vkey("wb", 3))
}

// data makes a data directory whose log holds n facts; salt makes them others.
func data(t *testing.T, n int, salt string, log byte) string {
	t.Helper()
	const origin = "t.example/events"
	files := map[string][]byte{}
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	width := fmt.Sprintf("000.p/%d", n)
	for i := range int64(n) {
		e, err := wire.Marshal(map[int]any{1: 1, 2: fmt.Appendf(nil, "%016d", i), 3: "kind" + salt})
		if err != nil {
			t.Fatal(err)
		}
		files["tile/entries/"+width] = append(binary.BigEndian.AppendUint16(files["tile/entries/"+width], uint16(len(e))), e...)
		more, err := tlog.StoredHashes(i, e, reader)
		if err != nil {
			t.Fatal(err)
		}
		files["tile/0/"+width] = append(files["tile/0/"+width], more[0][:]...)
		hashes = append(hashes, more...)
	}
	root, err := tlog.TreeHash(int64(n), reader)
	if err != nil {
		t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(origin, ledger.State{Size: uint64(n), Root: root}, key(log))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ledger.ParseNote(note)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []string{"wa", "wb"} {
		line, err := ledger.Ed25519Cosigner(w, key(byte(2+i))).Line(parsed, time.Unix(7, 0))
		if err != nil {
			t.Fatal(err)
		}
		note = append(note, line...)
	}
	files["checkpoint"] = note
	dir := t.TempDir()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		put(t, filepath.Join(dir, "log", "events", filepath.FromSlash(p)), files[p])
	}
	put(t, filepath.Join(dir, "log", "trust.json"), []byte(trust(origin, log)))
	return dir
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hallmark(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = cli.Main(args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// The keys beside the logs are the owner's own; that they prove less is said, and not where a program reads.
func TestLogVerifySaysWhoseKeysItBelieves(t *testing.T) {
	dir := data(t, 5, "", 1)
	code, out, said := hallmark("log", "verify", "--dir", dir, "--json")
	if code != 0 || !strings.Contains(said, "came with the logs") || !strings.Contains(said, "--trust") {
		t.Errorf("exit %d, %s", code, said)
	}
	if !json.Valid([]byte(out)) {
		t.Errorf("no JSON: %s", out)
	}
	mine := put(t, filepath.Join(t.TempDir(), "mine.json"), []byte(trust("t.example/events", 1)))
	if code, _, said := hallmark("log", "verify", "--dir", dir, "--trust", mine); code != 0 || said != "" {
		t.Errorf("exit %d, %s", code, said)
	}
	// A forger who writes log and trust.json anew is not found by the keys that came along, and is by those that were kept.
	forged := data(t, 5, "forged", 9)
	if code, _, _ := hallmark("log", "verify", "--dir", forged); code != 0 {
		t.Errorf("exit %d", code)
	}
	if code, _, said := hallmark("log", "verify", "--dir", forged, "--trust", mine); code != 1 || !strings.Contains(said, "does NOT verify") {
		t.Errorf("exit %d, %s", code, said)
	}
}

func TestLogVerifyRefusesATrustFileThatProvesNothing(t *testing.T) {
	dir := data(t, 5, "", 1)
	for change, want := range map[string]string{`"quorum":0`: "quorum 0", `"qorum":2`: "qorum", `"quorum":3`: "quorum 3"} {
		loose := put(t, filepath.Join(t.TempDir(), "t.json"), []byte(strings.Replace(trust("t.example/events", 1), `"quorum":2`, change, 1)))
		if code, _, said := hallmark("log", "verify", "--dir", dir, "--trust", loose); code != 1 || !strings.Contains(said, want) {
			t.Errorf("%s: exit %d, %s", change, code, said)
		}
	}
}

func TestLogVerifySinceFindsWhatWasCutOrRewritten(t *testing.T) {
	kept := func(n int, salt string) string {
		return filepath.Join(data(t, n, salt, 1), "log", "events", "checkpoint")
	}
	now := data(t, 9, "", 1)
	elsewhere := put(t, filepath.Join(t.TempDir(), "cp"), []byte("u.example/events\n1\nAAAA\n\n"))
	for _, c := range []struct {
		name, since string
		code        int
		want        string
	}{
		{"an older one", kept(4, ""), 0, "continues the log of size 4"},
		{"the same", kept(9, ""), 0, "continues the log of size 9"},
		{"a longer one", kept(12, ""), 1, "the log was cut: it has 9 entries, and had 12"},
		{"another", kept(4, "x"), 1, "the log was rewritten"},
		{"another log's", elsewhere, 1, "of none of the logs"},
		{"no file", filepath.Join(t.TempDir(), "none"), 1, "no such file"},
	} {
		code, out, said := hallmark("log", "verify", "--dir", now, "--since", c.since)
		if code != c.code || !strings.Contains(out+said, c.want) {
			t.Errorf("%s: exit %d, %s%s", c.name, code, out, said)
		}
	}
	if code, out, said := hallmark("log", "verify", "--dir", now, "--since", kept(4, ""), "--since", kept(5, "x")); code != 1 {
		t.Errorf("two of them: exit %d, %s%s", code, out, said)
	}
}
