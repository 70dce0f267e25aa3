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
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// Fetcher reads one of the log's files (c2sp.org/tlog-tiles) by its path: "checkpoint", "tile/0/000" …
type Fetcher func(ctx context.Context, path string) ([]byte, error)

// Policy is whom the auditor believes.
type Policy struct {
	Origin    string
	Key       ed25519.PublicKey
	Witnesses map[string]ed25519.PublicKey
	Quorum    int
}

// Report is what a log that holds turned out to hold.
type Report struct {
	Origin   string            `json:"origin"`
	Size     uint64            `json:"size"`
	Root     string            `json:"root"` // base64, as in the checkpoint
	Kinds    map[string]uint64 `json:"kinds"`
	Cosigned []string          `json:"cosigned"`
	UIDs     map[string]uint64 `json:"-"` // hex UID of each fact → its index
}

type hash = [sha256.Size]byte

// Verify recomputes the log. Any mismatch is an error that names the file or entry.
func Verify(ctx context.Context, p Policy, fetch Fetcher) (Report, error) {
	note, err := fetch(ctx, "checkpoint")
	if err != nil {
		return Report{}, fmt.Errorf("checkpoint: %w", err)
	}
	size, root, cosigned, err := checkNote(p, note)
	if err != nil {
		return Report{}, fmt.Errorf("checkpoint: %w", err)
	}
	r := Report{
		Origin: p.Origin, Size: size, Root: base64.StdEncoding.EncodeToString(root[:]), Cosigned: cosigned,
		Kinds: map[string]uint64{}, UIDs: map[string]uint64{},
	}
	leaves, err := r.readEntries(ctx, fetch)
	if err != nil {
		return Report{}, err
	}
	if got := treeHead(leaves); got != root {
		return Report{}, fmt.Errorf("the %d entries lead to root %s, the checkpoint says %s",
			size, base64.StdEncoding.EncodeToString(got[:]), r.Root)
	}
	return r, checkTiles(ctx, leaves, fetch)
}

func checkNote(p Policy, note []byte) (size uint64, root hash, cosigned []string, err error) {
	text, sigs, ok := strings.Cut(string(note), "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 3 {
		return 0, hash{}, nil, errors.New("not a checkpoint note")
	}
	body := text + "\n"
	if lines[0] != p.Origin {
		return 0, hash{}, nil, fmt.Errorf("origin %q, want %q", lines[0], p.Origin)
	}
	size, err = strconv.ParseUint(lines[1], 10, 63)
	rootBytes, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || err2 != nil || len(rootBytes) != sha256.Size || strconv.FormatUint(size, 10) != lines[1] {
		return 0, hash{}, nil, errors.New("size or root is malformed")
	}
	signed := false
	for line := range strings.Lines(sigs) {
		name, sig, typ, err := p.checkLine(line, body)
		if err != nil {
			return 0, hash{}, nil, err
		}
		switch typ {
		case 1:
			signed = signed || sig
		case 4:
			cosigned = append(cosigned, name)
		}
	}
	if !signed {
		return 0, hash{}, nil, errors.New("not signed by the log's key")
	}
	if len(cosigned) < p.Quorum {
		return 0, hash{}, nil, fmt.Errorf("cosigned by %d witnesses, want %d", len(cosigned), p.Quorum)
	}
	return size, hash(rootBytes), cosigned, nil
}

// checkLine verifies one signature line; typ is 1 for the log, 4 for a witness, 0 for a key the policy does not know.
func (p Policy) checkLine(line, body string) (name string, ok bool, typ int, err error) {
	rest, found := strings.CutPrefix(line, "\u2014 ")
	rest, ended := strings.CutSuffix(rest, "\n")
	name, b64, split := strings.Cut(rest, " ")
	raw, decErr := base64.StdEncoding.Strict().DecodeString(b64)
	if !found || !ended || !split || decErr != nil || len(raw) < 5 {
		return "", false, 0, fmt.Errorf("malformed signature line %q", strings.TrimSpace(line))
	}
	id, sig := binary.BigEndian.Uint32(raw), raw[4:]
	if name == p.Origin {
		if id != keyHash(name, 1, p.Key) || len(sig) != ed25519.SignatureSize || !ed25519.Verify(p.Key, []byte(body), sig) {
			return "", false, 0, errors.New("the log's signature is wrong")
		}
		return name, true, 1, nil
	}
	key, known := p.Witnesses[name]
	if !known {
		return name, false, 0, fmt.Errorf("cosigned by %q, whom the policy does not know", name)
	}
	if id != keyHash(name, 4, key) || len(sig) != 8+ed25519.SignatureSize {
		return "", false, 0, fmt.Errorf("the cosignature of %s is malformed or by another key", name)
	}
	text := "cosignature/v1\ntime " + strconv.FormatUint(binary.BigEndian.Uint64(sig), 10) + "\n" + body
	if !ed25519.Verify(key, []byte(text), sig[8:]) {
		return "", false, 0, fmt.Errorf("the cosignature of %s is wrong", name)
	}
	return name, true, 4, nil
}

func keyHash(name string, typ byte, key ed25519.PublicKey) uint32 {
	b := append([]byte(name+"\n"), typ)
	sum := sha256.Sum256(append(b, key...))
	return binary.BigEndian.Uint32(sum[:])
}

// readEntries reads every entry bundle, counts the kinds, and gives the leaf hashes.
func (r *Report) readEntries(ctx context.Context, fetch Fetcher) ([]hash, error) {
	var leaves []hash
	for n := uint64(0); n*256 < r.Size; n++ {
		path := filePath("entries", n, min(256, r.Size-n*256))
		data, err := fetch(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
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
		if len(data) != 0 {
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
			path := filePath(strconv.Itoa(l), uint64(n), uint64(len(row)))
			got, err := fetch(ctx, path)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			var want []byte
			for _, h := range row {
				want = append(want, h[:]...)
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
