package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Proof shows that an entry is in a log, under a checkpoint that the log signed and witnesses cosigned. It carries hashes and
// signatures only: the verifier rebuilds the checkpoint's text from the origin it was configured with (c2sp.org/tlog-checkpoint).
type Proof struct {
	Index        uint64        `cbor:"1,keyasint" json:"index"`
	Size         uint64        `cbor:"2,keyasint" json:"size"`
	Path         [][]byte      `cbor:"3,keyasint" json:"path"`
	LogSignature []byte        `cbor:"4,keyasint" json:"log_signature"` // Ed25519 over the checkpoint's text, 64 bytes
	Cosignatures []Cosignature `cbor:"5,keyasint" json:"cosignatures"`
}

// Cosignature is one witness's timed signature (c2sp.org/tlog-cosignature, cosignature/v1).
type Cosignature struct {
	Witness   string `cbor:"1,keyasint" json:"witness"`
	Time      uint64 `cbor:"2,keyasint" json:"time"` // seconds since 1970
	Signature []byte `cbor:"3,keyasint" json:"signature"`
}

// Logged is an entry together with the proof that it is in its log.
type Logged struct {
	Entry []byte `cbor:"1,keyasint" json:"entry"`
	Proof Proof  `cbor:"2,keyasint" json:"proof"`
}

// LogPolicy is whom a verifier believes about a log.
type LogPolicy struct {
	Origin    string
	LogKey    ed25519.PublicKey
	Witnesses []Witness
	Quorum    uint
}

// Witness is a cosigner by name.
type Witness struct {
	Name string
	Key  ed25519.PublicKey
}

// Checkpoint is what a verified proof stands under. Cosigned is the oldest time in the freshest quorum: at that time, at
// least Quorum witnesses had seen the tree.
type Checkpoint struct {
	Origin   string
	Size     uint64
	Root     [32]byte
	Cosigned time.Time
}

// Reasons a proof is refused, for errors.Is.
var (
	ErrInclusion    = errors.New("not in the log")
	ErrLogSignature = errors.New("checkpoint not signed by the log")
	ErrNotWitnessed = errors.New("checkpoint not cosigned by enough witnesses")
)

// MaxLogged bounds an encoded Logged.
const MaxLogged = MaxFact + 16<<10

// EncodeLogged writes l.
func EncodeLogged(l Logged) ([]byte, error) { return bounded(l, MaxLogged) }

// DecodeLogged reads an entry with its proof.
func DecodeLogged(data []byte) (Logged, error) {
	var l Logged
	return l, Unmarshal(data, &l, MaxLogged)
}

// Policy gives the log policy of a bundle for one of its logs.
func (b Bundle) Policy(log LogTrust) LogPolicy {
	p := LogPolicy{Origin: log.Origin, LogKey: log.Key, Quorum: b.Quorum}
	for _, w := range b.Witnesses {
		p.Witnesses = append(p.Witnesses, Witness{Name: w.Name, Key: w.Key})
	}
	return p
}

// CheckpointText is the signed body of a checkpoint note.
func CheckpointText(origin string, size uint64, root [32]byte) string {
	return origin + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

// CosignatureText is what a cosignature/v1 signs: the time, and the checkpoint's body.
func CosignatureText(at uint64, body string) string {
	return "cosignature/v1\ntime " + strconv.FormatUint(at, 10) + "\n" + body
}

// Verify checks that entry is in the log that policy describes.
func (p Proof) Verify(policy LogPolicy, entry []byte) (Checkpoint, error) {
	root, err := RootFromPath(p.Index, p.Size, leafHash(entry), p.Path)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w %s: %w", ErrInclusion, policy.Origin, err)
	}
	body := CheckpointText(policy.Origin, p.Size, root)
	if len(policy.LogKey) != ed25519.PublicKeySize || !ed25519.Verify(policy.LogKey, []byte(body), p.LogSignature) {
		return Checkpoint{}, fmt.Errorf("%s at size %d: %w", policy.Origin, p.Size, ErrLogSignature)
	}
	at, err := p.quorumTime(policy, body)
	if err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{Origin: policy.Origin, Size: p.Size, Root: root, Cosigned: at}, nil
}

// RootOf gives the root that the proof of l leads to, which whoever signs a tree has to sign.
func RootOf(l Logged) ([32]byte, error) {
	return RootFromPath(l.Proof.Index, l.Proof.Size, leafHash(l.Entry), l.Proof.Path)
}

func (p Proof) quorumTime(policy LogPolicy, body string) (time.Time, error) {
	if len(p.Cosignatures) > maxSignatures {
		return time.Time{}, fmt.Errorf("%d cosignatures, at most %d", len(p.Cosignatures), maxSignatures)
	}
	newest := map[string]uint64{} // by key: one key under two names is one witness
	for _, c := range p.Cosignatures {
		for _, w := range policy.Witnesses {
			if w.Name != c.Witness {
				continue
			}
			if len(w.Key) != ed25519.PublicKeySize || !ed25519.Verify(w.Key, []byte(CosignatureText(c.Time, body)), c.Signature) {
				return time.Time{}, fmt.Errorf("%s at size %d: %w: signature of %s is wrong", policy.Origin, p.Size, ErrNotWitnessed, w.Name)
			}
			newest[string(w.Key)] = max(newest[string(w.Key)], c.Time)
		}
	}
	if uint(len(newest)) < policy.Quorum {
		return time.Time{}, fmt.Errorf("%s at size %d: %w: %d of %d", policy.Origin, p.Size, ErrNotWitnessed, len(newest), policy.Quorum)
	}
	times := make([]uint64, 0, len(newest))
	for _, t := range newest {
		times = append(times, t)
	}
	return time.Unix(int64(min(nth(times, policy.Quorum), 1<<40)), 0).UTC(), nil
}

// nth gives the k-th newest of times; 0 when k is 0.
func nth(times []uint64, k uint) uint64 {
	var out uint64
	for range k {
		best := -1
		for i, t := range times {
			if best < 0 || t > times[best] {
				best = i
			}
		}
		out = times[best]
		times = append(times[:best], times[best+1:]...)
	}
	return out
}

// NoteKeyID is the four-byte key hash of a note signature: SHA-256 of name, newline, type and key (c2sp.org/signed-note).
func NoteKeyID(name string, typ byte, key []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write([]byte{typ})
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}
