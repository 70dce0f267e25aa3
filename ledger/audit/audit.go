// Package audit recomputes a log from its published files, and says whether they are what they claim.
//
// Under all stages. It shares no code with the packages that write the log: hashes by crypto/sha256, the tree after RFC 6962,
// the note after c2sp.org/signed-note, the kinds of facts by a decoder of its own. It trusts only the keys it is given.
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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Fetcher reads one of the log's files (c2sp.org/tlog-tiles) by its path: "checkpoint", "tile/0/000" …
type Fetcher func(ctx context.Context, path string) ([]byte, error)

// Policy is whom the auditor believes.
type Policy struct {
	Origin    string
	Key       ed25519.PublicKey
	Witnesses []Witness
	Quorum    int
}

// Report is what a log that holds turned out to hold.
type Report struct {
	Origin   string            `json:"origin"`
	Size     uint64            `json:"size"`
	Root     string            `json:"root"` // base64, as in the checkpoint
	Kinds    map[string]uint64 `json:"kinds"`
	Cosigned []string          `json:"cosigned"`          // the policy's witnesses, each once, whose signatures hold
	Seen     time.Time         `json:"seen"`              // when a quorum had seen this tree: of a log that is kept from going on, long ago
	Strange  []string          `json:"strange,omitempty"` // signers the policy does not know: they count for nothing
	Since    []uint64          `json:"since,omitempty"`   // sizes of the earlier checkpoints that it continues
	UIDs     map[string]uint64 `json:"-"`                 // hex UID of each fact → its index

	at map[string]uint64 // of those cosigned: the newest time that a signature which holds has
}

type hash = [sha256.Size]byte

// Verify recomputes the log. Any mismatch is an error that names the file or entry. Of earlier checkpoints, which the log itself
// must have signed, it must be a continuation: ErrTruncated or ErrRewritten otherwise. Without one, whoever holds the keys of the
// log and of a quorum of witnesses could have shown another log before.
func Verify(ctx context.Context, p Policy, fetch Fetcher, earlier ...[]byte) (Report, error) {
	if err := p.check(); err != nil {
		return Report{}, err
	}
	note, err := fetch(ctx, "checkpoint")
	if err != nil {
		return Report{}, fmt.Errorf("checkpoint: %w", err)
	}
	r := Report{Kinds: map[string]uint64{}, UIDs: map[string]uint64{}}
	root, err := r.checkNote(p, note)
	if err != nil {
		return Report{}, fmt.Errorf("checkpoint: %w", err)
	}
	if got := len(r.Cosigned); got < p.Quorum {
		return Report{}, fmt.Errorf("checkpoint: cosigned by %d witnesses, want %d", got, p.Quorum)
	}
	r.Seen = r.head(root).Seen(p.Quorum)
	leaves, err := r.readEntries(ctx, fetch)
	if err != nil {
		return Report{}, err
	}
	if got := treeHead(leaves); got != root {
		return Report{}, fmt.Errorf("the %d entries lead to root %s, the checkpoint says %s",
			r.Size, base64.StdEncoding.EncodeToString(got[:]), r.Root)
	}
	if err := checkTiles(ctx, leaves, fetch); err != nil {
		return Report{}, err
	}
	for _, note := range earlier {
		size, err := continues(p, note, leaves)
		if err != nil {
			return Report{}, err
		}
		r.Since = append(r.Since, size)
	}
	return r, nil
}

// continues checks that the leaves begin with those of an earlier checkpoint.
func continues(p Policy, note []byte, leaves []hash) (uint64, error) {
	var old Report
	root, err := old.checkNote(p, note)
	switch {
	case err != nil:
		return 0, fmt.Errorf("earlier checkpoint: %w", err)
	case old.Size > uint64(len(leaves)):
		return 0, fmt.Errorf("%w: it has %d entries, and had %d", ErrTruncated, len(leaves), old.Size)
	case treeHead(leaves[:old.Size]) != root:
		return 0, fmt.Errorf("%w: its first %d entries are not those of the earlier checkpoint", ErrRewritten, old.Size)
	}
	return old.Size, nil
}

// maxNote bounds a checkpoint: more signatures than any policy asks for.
const maxNote = 64 << 10

// checkNote verifies the signed checkpoint, and notes what it says and who signed it.
func (r *Report) checkNote(p Policy, note []byte) (root hash, err error) {
	text, sigs, ok := strings.Cut(string(note), "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 3 || len(note) > maxNote {
		return hash{}, errors.New("not a checkpoint note")
	}
	if lines[0] != p.Origin {
		return hash{}, fmt.Errorf("origin %q, want %q", lines[0], p.Origin)
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	rootBytes, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || err2 != nil || len(rootBytes) != sha256.Size || strconv.FormatUint(size, 10) != lines[1] ||
		base64.StdEncoding.EncodeToString(rootBytes) != lines[2] {
		return hash{}, errors.New("size or root is malformed")
	}
	signed := false
	for line := range strings.Lines(sigs) {
		name, by, at, err := p.checkLine(line, text+"\n")
		switch {
		case err != nil:
			return hash{}, err
		case by == byLog:
			signed = true
		case by == byStranger:
			r.Strange = append(r.Strange, name)
		default: // one that signs twice, or with two keys, is one witness
			if !slices.Contains(r.Cosigned, name) {
				r.Cosigned = append(r.Cosigned, name)
			}
			if r.at == nil {
				r.at = map[string]uint64{}
			}
			r.at[name] = max(r.at[name], at)
		}
	}
	if !signed {
		return hash{}, errors.New("not signed by the log's key")
	}
	r.Origin, r.Size, r.Root = p.Origin, size, lines[2]
	return hash(rootBytes), nil
}

// Who signed a line.
const (
	byStranger = iota
	byLog
	byWitness
)

// checkLine verifies one signature line, and gives the time that a witness signed. A signature by a key the policy does not know is a
// stranger's, whatever its name: it must be ignored (c2sp.org/signed-note). One by a known key that does not verify is an error.
func (p Policy) checkLine(line, body string) (name string, by int, at uint64, err error) {
	rest, found := strings.CutPrefix(line, "\u2014 ")
	rest, ended := strings.CutSuffix(rest, "\n")
	name, b64, split := strings.Cut(rest, " ")
	raw, decErr := base64.StdEncoding.Strict().DecodeString(b64)
	if !found || !ended || !split || name == "" || decErr != nil || len(raw) < 5 || base64.StdEncoding.EncodeToString(raw) != b64 {
		return "", 0, 0, fmt.Errorf("malformed signature line %q", strings.TrimSpace(line))
	}
	id, sig := binary.BigEndian.Uint32(raw), raw[4:]
	if name == p.Origin && id == keyHash(name, 1, p.Key) {
		if len(p.Key) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize || !ed25519.Verify(p.Key, []byte(body), sig) {
			return "", 0, 0, errors.New("the log's signature is wrong")
		}
		return name, byLog, 0, nil
	}
	for _, w := range p.Witnesses {
		if w.Name != name || id != keyHash(name, w.Type, w.Key) {
			continue
		}
		if err := w.check(body, sig); err != nil {
			return "", 0, 0, fmt.Errorf("the cosignature of %s is %w", name, err)
		}
		return name, byWitness, binary.BigEndian.Uint64(sig), nil
	}
	return name, byStranger, 0, nil
}

func keyHash(name string, typ byte, key []byte) uint32 {
	b := append([]byte(name+"\n"), typ)
	sum := sha256.Sum256(append(b, key...))
	return binary.BigEndian.Uint32(sum[:])
}

// fetchTile reads a file of a level. A partial one may be gone once the full one is there, of which it is the beginning
// (c2sp.org/tlog-tiles): then whole is true.
func fetchTile(ctx context.Context, fetch Fetcher, level string, n, width uint64) (path string, data []byte, whole bool, err error) {
	path = filePath(level, n, width)
	data, err = fetch(ctx, path)
	if err == nil || width == 256 {
		return path, data, false, wrap(path, err)
	}
	full := filePath(level, n, 256)
	if data, err2 := fetch(ctx, full); err2 == nil {
		return full, data, true, nil
	}
	return path, nil, false, wrap(path, err)
}

func wrap(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// readEntries reads every entry bundle, counts the kinds, and gives the leaf hashes.
func (r *Report) readEntries(ctx context.Context, fetch Fetcher) ([]hash, error) {
	var leaves []hash
	for n := uint64(0); n*256 < r.Size; n++ {
		path, data, whole, err := fetchTile(ctx, fetch, "entries", n, min(256, r.Size-n*256))
		if err != nil {
			return nil, err
		}
		for len(leaves) < int(min(r.Size, (n+1)*256)) {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				return nil, fmt.Errorf("%s: ends within entry %d", path, len(leaves))
			}
			entry := data[2 : 2+int(binary.BigEndian.Uint16(data))]
			data = data[2+len(entry):]
			if err := r.count(entry, uint64(len(leaves))); err != nil {
				return nil, fmt.Errorf("%s: entry %d: %w", path, len(leaves), err)
			}
			leaves = append(leaves, sha256.Sum256(append([]byte{0}, entry...)))
		}
		if len(data) != 0 && !whole {
			return nil, fmt.Errorf("%s: %d bytes too many", path, len(data))
		}
	}
	return leaves, nil
}

func (r *Report) count(entry []byte, index uint64) error {
	var fact struct {
		UID  []byte `cbor:"2,keyasint"`
		Kind string `cbor:"3,keyasint"`
	}
	if err := cbor.Unmarshal(entry, &fact); err != nil {
		return err
	}
	if fact.Kind == "" || len(fact.UID) != 16 {
		return errors.New("a fact without kind or UID")
	}
	uid := fmt.Sprintf("%x", fact.UID)
	if first, twice := r.UIDs[uid]; twice {
		return fmt.Errorf("the fact of entry %d again", first)
	}
	r.UIDs[uid] = index
	r.Kinds[fact.Kind]++
	return nil
}

// treeHead is MTH of RFC 6962 §2.1.
func treeHead(l []hash) hash {
	switch len(l) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return l[0]
	}
	k := 1
	for k*2 < len(l) {
		k *= 2
	}
	return join(treeHead(l[:k]), treeHead(l[k:]))
}

func join(a, b hash) hash {
	return sha256.Sum256(bytes.Join([][]byte{{1}, a[:], b[:]}, nil))
}

// checkTiles compares every tile of every level with what the leaves make of it.
func checkTiles(ctx context.Context, level []hash, fetch Fetcher) error {
	for l := 0; len(level) > 0; l++ {
		var up []hash
		for n := 0; n*256 < len(level); n++ {
			row := level[n*256 : min(len(level), (n+1)*256)]
			path, got, whole, err := fetchTile(ctx, fetch, strconv.Itoa(l), uint64(n), uint64(len(row)))
			if err != nil {
				return err
			}
			var want []byte
			for _, h := range row {
				want = append(want, h[:]...)
			}
			if whole && len(got) > len(want) {
				got = got[:len(want)]
			}
			if !bytes.Equal(got, want) {
				return fmt.Errorf("%s: does not hold the hashes of the entries", path)
			}
			if len(row) == 256 {
				up = append(up, treeHead(row))
			}
		}
		level = up
	}
	return nil
}

func filePath(level string, n, width uint64) string {
	var parts []string
	for first := true; first || n > 0; first = false {
		part := fmt.Sprintf("%03d", n%1000)
		if !first {
			part = "x" + part
		}
		parts = append([]string{part}, parts...)
		n /= 1000
	}
	path := "tile/" + level + "/" + strings.Join(parts, "/")
	if width < 256 {
		path += ".p/" + strconv.FormatUint(width, 10)
	}
	return path
}
