package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "example.com/events"

func key(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func public(b byte) ed25519.PublicKey { return key(b).Public().(ed25519.PublicKey) }

func policy() Policy {
	return Policy{Origin: origin, Key: public(1), Quorum: 2, Witnesses: []Witness{{"wa", Ed25519, public(2)}, {"wb", Ed25519, public(3)}}}
}

func cosign(name string, k ed25519.PrivateKey, at uint64, body string) string {
	sig := ed25519.Sign(k, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, body))
	raw := binary.BigEndian.AppendUint32(nil, keyHash(name, 4, k.Public().(ed25519.PublicKey)))
	raw = append(binary.BigEndian.AppendUint64(raw, at), sig...)
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// files makes a log of n entries with x/mod's tlog and note, which none of ours had a hand in.
func files(t testing.TB, n int) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	var hashes memory
	for i := range int64(n) {
		e, err := mode.Marshal(map[int]any{1: 1, 2: fmt.Appendf(nil, "%016d", i), 3: fmt.Sprint("kind.", i%3)})
		if err != nil {
			t.Fatal(err)
		}
		path := filePath("entries", uint64(i/256), uint64(min(256, int64(n)-i/256*256)))
		out[path] = append(binary.BigEndian.AppendUint16(out[path], uint16(len(e))), e...)
		more, err := tlog.StoredHashes(i, e, hashes)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	for _, tile := range tlog.NewTiles(8, 0, int64(n)) {
		data, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			t.Fatal(err)
		}
		out["tile/"+strings.TrimPrefix(tile.Path(), "tile/8/")] = data
	}
	root, err := tlog.TreeHash(int64(n), hashes)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf("%s\n%d\n%s\n", origin, n, base64.StdEncoding.EncodeToString(root[:]))
	skey := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", origin, keyHash(origin, 1, public(1)),
		base64.StdEncoding.EncodeToString(append([]byte{1}, key(1).Seed()...)))
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: body}, signer)
	if err != nil {
		t.Fatal(err)
	}
	out["checkpoint"] = append(signed, cosign("wa", key(2), 7, body)+cosign("wb", key(3), 8, body)...)
	return out
}

type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = m[x]
	}
	return out, nil
}

var errMissing = errors.New("no such file")

func fetcher(files map[string][]byte) Fetcher {
	return func(_ context.Context, path string) ([]byte, error) {
		if data, ok := files[path]; ok {
			return data, nil
		}
		return nil, errMissing
	}
}

func TestALogOfAnotherMakerVerifies(t *testing.T) {
	for _, n := range []int{1, 2, 255, 256, 257, 700} {
		r, err := Verify(t.Context(), policy(), fetcher(files(t, n)))
		if err != nil {
			t.Fatalf("%d entries: %v", n, err)
		}
		if r.Size != uint64(n) || len(r.Cosigned) != 2 || r.Kinds["kind.0"] != uint64((n+2)/3) || len(r.UIDs) != n || r.Seen.Unix() != 7 {
			t.Errorf("%d entries: report %+v", n, r)
		}
	}
}

func TestEveryFlippedBitOfEveryFileIsFound(t *testing.T) {
	good := files(t, 5)
	for path, data := range good {
		for i := range 8 * len(data) {
			bad := bytes.Clone(data)
			bad[i/8] ^= 1 << (i % 8)
			fetch := func(ctx context.Context, p string) ([]byte, error) {
				if p == path {
					return bad, nil
				}
				return fetcher(good)(ctx, p)
			}
			if r, err := Verify(t.Context(), policy(), fetch); err == nil || r.Size != 0 {
				t.Fatalf("%s: bit %d flipped, and the log verifies", path, i)
			}
		}
	}
}

func TestALogThatDoesNotHoldIsNamed(t *testing.T) {
	second := func(note string) int { return strings.LastIndex(note[:strings.LastIndex(note, "\u2014")], "\u2014") }
	for _, c := range []struct {
		name   string
		change func(f map[string][]byte, p *Policy)
		want   string
	}{
		{"one witness twice", func(f map[string][]byte, _ *Policy) {
			s := string(f["checkpoint"])
			wa := s[second(s):strings.LastIndex(s, "\u2014")]
			f["checkpoint"] = []byte(s[:second(s)] + wa + wa)
		}, "cosigned by 1 witnesses, want 2"},
		{"no log signature", func(f map[string][]byte, _ *Policy) {
			text, _, _ := strings.Cut(string(f["checkpoint"]), "\n\n")
			f["checkpoint"] = []byte(text + "\n\n" + cosign("wa", key(2), 7, text+"\n") + cosign("wb", key(3), 7, text+"\n"))
		}, "not signed by the log"},
		{"a witness's other key", func(_ map[string][]byte, p *Policy) { p.Witnesses[1].Key = public(9) }, "cosigned by 1"},
		{"another origin", func(_ map[string][]byte, p *Policy) { p.Origin = "example.com/control" }, "origin"},
		{"no checkpoint", func(f map[string][]byte, _ *Policy) { delete(f, "checkpoint") }, "checkpoint: no such file"},
		{"a missing tile", func(f map[string][]byte, _ *Policy) { delete(f, "tile/1/000.p/1") }, "tile/1/000.p/1: no such file"},
		{"a tile in excess", func(f map[string][]byte, _ *Policy) {
			f["tile/0/000"] = append(f["tile/0/000"], make([]byte, 32)...)
		}, "tile/0/000: does not hold"},
		{"missing entries", func(f map[string][]byte, _ *Policy) { delete(f, "tile/entries/001.p/44") }, "tile/entries/001.p/44"},
		{"an entry in excess", func(f map[string][]byte, _ *Policy) {
			f["tile/entries/000"] = append(f["tile/entries/000"], 0, 0)
		}, "tile/entries/000: 2 bytes too many"},
		{"a cut entry", func(f map[string][]byte, _ *Policy) {
			f["tile/entries/000"] = f["tile/entries/000"][:100]
		}, "tile/entries/000: ends within entry"},
	} {
		f, p := files(t, 300), policy()
		c.change(f, &p)
		if _, err := Verify(t.Context(), p, fetcher(f)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Who signed that the policy does not know is said, counts for nothing, and does no harm.
func TestStrangersAreIgnored(t *testing.T) {
	f := files(t, 3)
	text, _, _ := strings.Cut(string(f["checkpoint"]), "\n\n")
	f["checkpoint"] = append(f["checkpoint"], cosign("stranger", key(4), 9, text+"\n")...)
	r, err := Verify(t.Context(), policy(), fetcher(f))
	if err != nil || len(r.Cosigned) != 2 || len(r.Strange) != 1 || r.Strange[0] != "stranger" {
		t.Errorf("%+v, %v", r, err)
	}
}

// When a tree was seen is what witnesses signed. A line in a witness's name by a key that nobody knows is a stranger's: whoever serves
// the files can write one, and would make an old checkpoint look new for ever.
func TestOnlyAWitnessTellsWhenItSaw(t *testing.T) {
	note := string(files(t, 3)["checkpoint"])
	body, signatures, _ := strings.Cut(note, "\n\n")
	forged := cosign("wa", key(9), 1<<33, body+"\n") + cosign("wb", key(9), 1<<33, body+"\n")
	later := cosign("wa", key(2), 20, body+"\n")
	for _, c := range []struct {
		name, signatures string
		want             int64 // 7 and 8 are what the two have signed
	}{
		{"as it was", signatures, 7},
		{"forged lines first", forged + signatures, 7},
		{"forged lines last", signatures + forged, 7},
		{"signed again later", signatures + later, 8},
		{"signed again later, first", later + signatures, 8},
	} {
		head, err := Checkpoint(policy(), []byte(body+"\n\n"+c.signatures))
		if err != nil || head.Seen(2).Unix() != c.want {
			t.Errorf("%s: seen %d, %v; want %d", c.name, head.Seen(2).Unix(), err, c.want)
		}
	}
}

// A reader with an older checkpoint finds the beginning of a full tile where the partial one was.
func TestAFullTileStandsForItsPartialOnes(t *testing.T) {
	old, now := files(t, 200), files(t, 300)
	now["checkpoint"] = old["checkpoint"]
	if r, err := Verify(t.Context(), policy(), fetcher(now)); err != nil || r.Size != 200 {
		t.Errorf("%+v, %v", r, err)
	}
	now["tile/0/000"][32*199] ^= 1
	if _, err := Verify(t.Context(), policy(), fetcher(now)); err == nil {
		t.Error("a changed full tile verifies")
	}
}

// Whatever the files say, a log verifies only when it is the one that was signed.
func FuzzVerify(f *testing.F) {
	good := files(f, 3)
	f.Add(good["checkpoint"], good["tile/0/000.p/3"], good["tile/entries/000.p/3"])
	f.Add([]byte(origin+"\n9223372036854775807\n\n\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, checkpoint, tile, entries []byte) {
		fetch := fetcher(map[string][]byte{"checkpoint": checkpoint, "tile/0/000.p/3": tile, "tile/entries/000.p/3": entries})
		if _, err := Verify(t.Context(), policy(), fetch); err != nil {
			return
		}
		if sha256.Sum256(entries) != sha256.Sum256(good["tile/entries/000.p/3"]) || !bytes.Equal(tile, good["tile/0/000.p/3"]) {
			t.Fatal("a log nobody signed verifies")
		}
	})
}
