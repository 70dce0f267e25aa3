package mirror_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/mirror"
	"github.com/hallmark-iot/hallmark/wire"
)

const origin = "log.example/events"

type signer struct{ ed25519.PrivateKey }

func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.PrivateKey, text), nil }
func (s signer) Public() ed25519.PublicKey        { return s.PrivateKey.Public().(ed25519.PublicKey) }

func key(b byte) signer {
	return signer{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

func policy() audit.Policy {
	return audit.Policy{
		Origin: origin, Key: key(1).Public(), Quorum: 1, Witnesses: []audit.Witness{{Name: "w", Type: audit.Ed25519, Key: key(2).Public()}},
	}
}

func cosignature(t testing.TB, note []byte) string {
	t.Helper()
	n, err := ledger.ParseNote(note)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ledger.Ed25519Cosigner("w", key(2)).Line(n, time.Unix(7, 0))
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// files is a log's files in memory; as a source and as a target.
type files map[string][]byte

func (f files) Get(_ context.Context, path string) ([]byte, error) { return f[path], nil }

func (f files) Put(_ context.Context, path string, data []byte) error {
	f[path] = bytes.Clone(data)
	return nil
}

func (f files) Swap(_ context.Context, path string, old, data []byte) (bool, error) {
	if !bytes.Equal(f[path], old) {
		return false, nil
	}
	f[path] = bytes.Clone(data)
	return true, nil
}

func (f files) Drop(_ context.Context, dir string) error {
	maps.DeleteFunc(f, func(path string, _ []byte) bool { return strings.HasPrefix(path, dir+"/") })
	return nil
}

func (f files) fetch(_ context.Context, path string) ([]byte, error) {
	if data, ok := f[path]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
}

// log is a log made by x/mod's tlog: by other code than reads it.
type log struct {
	entries [][]byte
	hashes  []tlog.Hash
}

func (l *log) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, x := range at {
		out[i] = l.hashes[x]
	}
	return out, nil
}

func (l *log) grow(t testing.TB, n int, salt string) {
	t.Helper()
	for range n {
		i := int64(len(l.entries))
		e, err := wire.Marshal(map[int]any{1: 1, 2: fmt.Appendf(nil, "%s%013d", salt[:3], i), 3: "kind"})
		if err != nil {
			t.Fatal(err)
		}
		more, err := tlog.StoredHashes(i, e, l)
		if err != nil {
			t.Fatal(err)
		}
		l.entries, l.hashes = append(l.entries, e), append(l.hashes, more...)
	}
}

// export writes the files of the log as it is now, and takes away partial ones that are not needed any more.
func (l *log) export(t testing.TB, to files) {
	t.Helper()
	size := int64(len(l.entries))
	maps.DeleteFunc(to, func(path string, _ []byte) bool { return strings.Contains(path, ".p/") })
	for _, tile := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(tile, l)
		if err != nil {
			t.Fatal(err)
		}
		to["tile/"+strings.TrimPrefix(tile.Path(), "tile/8/")] = data
	}
	for n := int64(0); n*256 < size; n++ {
		w := min(256, size-n*256)
		var b []byte
		for _, e := range l.entries[n*256 : n*256+w] {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
		}
		to[mirror.Path("entries", uint64(n), int(w))] = b
	}
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(origin, ledger.State{Size: uint64(size), Root: root}, key(1))
	if err != nil {
		t.Fatal(err)
	}
	to["checkpoint"] = append(note, cosignature(t, note)...)
}

func newLog(t testing.TB, n int, salt string) (*log, files) {
	t.Helper()
	l, f := &log{}, files{}
	l.grow(t, n, salt)
	l.export(t, f)
	return l, f
}

func verifies(t *testing.T, f files, size int) {
	t.Helper()
	rep, err := audit.Verify(t.Context(), policy(), f.fetch)
	if err != nil || rep.Size != uint64(size) {
		t.Fatalf("the mirror has %d entries, want %d: %v", rep.Size, size, err)
	}
}

func TestItFollowsALog(t *testing.T) {
	l, from := newLog(t, 1, "aaa")
	to := files{}
	c := mirror.Copy{Policy: policy(), From: from.fetch, To: to}
	size := 1
	for _, more := range []int{0, 0, 2, 252, 1, 1, 255, 300, 1000, 65536 - 1812, 1, 300} {
		l.grow(t, more, "aaa")
		size += more
		l.export(t, from)
		rep, err := c.Run(t.Context())
		if err != nil || rep.Size != uint64(size) || rep.Source != uint64(size) {
			t.Fatalf("%+v, %v; want size %d", rep, err, size)
		}
		if size < 3000 || size > 65536 {
			verifies(t, to, size)
		}
	}
	for path := range to {
		if _, ok := from[path]; !ok {
			t.Errorf("%s is left over", path)
		}
	}
}

func TestASourceThatIsBehindIsLeftAlone(t *testing.T) {
	l, from := newLog(t, 300, "aaa")
	old := maps.Clone(from)
	l.grow(t, 20, "aaa")
	l.export(t, from)
	to := files{}
	if _, err := (mirror.Copy{Policy: policy(), From: from.fetch, To: to}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Copy{Policy: policy(), From: old.fetch, To: to}.Run(t.Context())
	if err != nil || rep.Size != 320 || rep.Source != 300 {
		t.Errorf("%+v, %v", rep, err)
	}
	verifies(t, to, 320)
}

func TestASourceThatContradictsIsNamedAndKept(t *testing.T) {
	for name, n := range map[string]int{"shorter": 7, "as long": 300, "longer": 700} {
		_, from := newLog(t, 300, "aaa")
		_, liar := newLog(t, n, "bbb")
		to := files{}
		if _, err := (mirror.Copy{Policy: policy(), From: from.fetch, To: to}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := maps.Clone(to)
		_, err := mirror.Copy{Policy: policy(), From: liar.fetch, To: to}.Run(t.Context())
		if !errors.Is(err, mirror.ErrForked) {
			t.Fatalf("%s: %v, want ErrForked", name, err)
		}
		kept := 0
		for path, data := range to {
			switch {
			case strings.HasPrefix(path, "evidence/"):
				if bytes.Equal(data, from["checkpoint"]) || bytes.Equal(data, liar["checkpoint"]) {
					kept++
				}
			case !bytes.Equal(before[path], data):
				t.Errorf("%s: %s was changed", name, path)
			}
		}
		if kept != 2 {
			t.Errorf("%s: %d checkpoints kept as evidence, want both", name, kept)
		}
	}
}

// Every flipped bit of a small log's files, at the source, is refused with the file's name, and nothing wrong is kept.
func TestEveryFlippedBitOfTheSourceIsRefused(t *testing.T) {
	_, from := newLog(t, 7, "aaa")
	for path, good := range from {
		for i := range good {
			for bit := range 8 {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << bit
				fetch := func(ctx context.Context, p string) ([]byte, error) {
					if p == path {
						return bad, nil
					}
					return from.fetch(ctx, p)
				}
				to := files{}
				_, err := mirror.Copy{Policy: policy(), From: fetch, To: to}.Run(t.Context())
				if err == nil {
					t.Fatalf("%s: bit %d of byte %d flipped, and mirrored", path, bit, i)
				}
				if !strings.Contains(err.Error(), path) {
					t.Fatalf("%s: byte %d: the file is not named: %v", path, i, err)
				}
				for p, data := range to {
					if !bytes.Equal(data, from[p]) {
						t.Fatalf("%s: byte %d: %s is kept wrong", path, i, p)
					}
				}
			}
		}
	}
}

// In a large log a changed or lost full tile or bundle is named too, and so is one of the mirror's own.
func TestALostOrChangedFileIsNamed(t *testing.T) {
	_, from := newLog(t, 65536+600, "aaa")
	for _, path := range []string{"tile/0/000", "tile/0/257", "tile/1/000", "tile/entries/003", "tile/entries/258.p/88", "tile/2/000.p/1"} {
		for how, change := range map[string]func([]byte) []byte{
			"lost": nil, "flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"short": func(b []byte) []byte { return b[:len(b)-1] }, "long": func(b []byte) []byte { return append(b, 0) },
		} {
			fetch := func(ctx context.Context, p string) ([]byte, error) {
				if p == path && change == nil {
					return nil, fs.ErrNotExist
				}
				data, err := from.fetch(ctx, p)
				if p == path && err == nil {
					data = change(bytes.Clone(data))
				}
				return data, err
			}
			if _, err := (mirror.Copy{Policy: policy(), From: fetch, To: files{}}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: %v", path, how, err)
			}
		}
	}
}

// Ended anywhere, the next run goes on, does not fetch again what is there, and ends with the whole log.
func TestItGoesOnWhereItWas(t *testing.T) {
	_, from := newLog(t, 2000, "aaa")
	to := files{}
	fetched := 0
	count := func(ctx context.Context, p string) ([]byte, error) {
		if strings.HasPrefix(p, "tile/entries/") {
			fetched++
		}
		return from.fetch(ctx, p)
	}
	type killed struct{}
	for i := range 8 {
		func() {
			defer func() {
				if p := recover(); p != (killed{}) {
					t.Fatalf("run %d: not ended: %v", i, p)
				}
			}()
			_, err := mirror.Copy{Policy: policy(), From: count, To: to, Failpoint: func(name string) {
				if i < 6 || name == []string{"mirror.copied", "mirror.checkpoint"}[i-6] {
					panic(killed{})
				}
			}}.Run(t.Context())
			t.Errorf("run %d came to its end: %v", i, err)
		}()
		if i < 7 && to["checkpoint"] != nil {
			t.Fatalf("run %d: a checkpoint before everything is there", i)
		}
	}
	if _, err := (mirror.Copy{Policy: policy(), From: count, To: to}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	verifies(t, to, 2000)
	if fetched != 8 {
		t.Errorf("%d bundles fetched, there are 8", fetched)
	}
}

// What the tree gives of an earlier size is what x/mod's tlog says of it.
func TestRootsOfEarlierSizes(t *testing.T) {
	l, from := newLog(t, 1000, "aaa")
	tree, err := mirror.Open(t.Context(), policy(), from.fetch)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range slices.Concat(seq(1, 20), seq(250, 260), seq(500, 520), seq(990, 1000)) {
		want, err := tlog.TreeHash(int64(size), l)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tree.RootAt(t.Context(), size); err != nil || tlog.Hash(got) != want {
			t.Fatalf("size %d: %x, %v; want %x", size, got, err, want)
		}
	}
	if _, err := tree.RootAt(t.Context(), 1001); err == nil {
		t.Error("a root of a size that is not there yet")
	}
}

func seq(from, to uint64) (out []uint64) {
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}
