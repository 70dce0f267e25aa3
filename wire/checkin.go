package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Checkin is what a device says when it asks "anything for me?". It is inside mutual TLS; what must be proven is in the
// evidence, the device log and the receipts, which are signed.
type Checkin struct {
	Nonce     []byte        `cbor:"1,keyasint"`           // fresh, 32 bytes; a directive must carry it
	Release   []byte        `cbor:"2,keyasint,omitempty"` // digest of what runs
	Version   string        `cbor:"3,keyasint,omitempty"`
	Trial     bool          `cbor:"4,keyasint,omitempty"` // running, not confirmed yet
	State     string        `cbor:"5,keyasint"`           // the agent's own: active, quarantined, dormant, recovery
	Counter   uint64        `cbor:"6,keyasint"`           // highest directive counter accepted
	Bundle    uint64        `cbor:"7,keyasint"`           // trust bundle version
	TreeSize  uint64        `cbor:"8,keyasint"`           // largest control-log size accepted
	BootCount uint64        `cbor:"9,keyasint"`
	Results   []Result      `cbor:"10,keyasint,omitempty"` // what became of earlier directives, oldest first
	Healthy   bool          `cbor:"11,keyasint,omitempty"` // neither this nor Sick: it is not known yet
	Health    string        `cbor:"12,keyasint,omitempty"` // what the program said
	Reported  []ConfigEntry `cbor:"13,keyasint,omitempty"` // the twin's reported side
	Progress  *Progress     `cbor:"14,keyasint,omitempty"`
	Sick      bool          `cbor:"15,keyasint,omitempty"` // the program says that it is not well, or has ended
	Programs  []ProgramTold `cbor:"17,keyasint,omitempty"` // what its programs said of the parameters that they are told
	Token     *Token        `cbor:"16,keyasint,omitempty"` // of a device that keeps one; a device that once sent one sends it always
	Left      [][]byte      `cbor:"20,keyasint,omitempty"` // releases (digest) that it was sent back from, and does not run again; oldest first
	Room      *Room         `cbor:"19,keyasint,omitempty"` // of its flash, for programs and data; nil: it does not say
	Locked    bool          `cbor:"18,keyasint,omitempty"` // protected programs wait for their keys: it would be asked for evidence
	Knows     []string      `cbor:"21,keyasint,omitempty"` // the kinds of message that it understands beyond those that every device does, in rising order
	Waits     *Waits        `cbor:"22,keyasint,omitempty"` // an install that it accepted, and that waits; nil: none
	Zone      string        `cbor:"23,keyasint,omitempty"` // where its clock on the wall is, as Europe/Berlin or +02:00; empty: it does not say
}

// ProgramTold is what a program answered to the parameters that it was told.
type ProgramTold struct {
	Program    string   `cbor:"1,keyasint" json:"program"`
	Parameters []string `cbor:"2,keyasint" json:"parameters"`                // those that it names
	Taken      bool     `cbor:"3,keyasint,omitempty" json:"taken,omitempty"` // else it refused, or did not answer yet
	Answered   bool     `cbor:"4,keyasint,omitempty" json:"answered,omitempty"`
	Text       string   `cbor:"5,keyasint,omitempty" json:"text,omitempty"` // what it said
}

// MaxLeft bounds the releases that a device was sent back from, and that would still start by their security counter: it goes back from no more.
const MaxLeft = 16

// Bounds of what a device says that it understands. Devices read strictly: a field that it does not know is sent to none, so that what is new in a server's
// messages has a name, and goes only to a device whose check-in has that name.
const (
	MaxKnows = 16 // names
	MaxKnown = 16 // bytes of a name
)

// MaxZone bounds the name of a time zone, bytes.
const MaxZone = 40

// MaxTold bounds what a program says of its parameters, bytes.
const MaxTold = 200

// Token is the rolling check-in token: what a device shows to be the one that was here last. Next is random and durable on the device
// before it is sent, and the same pair is sent until the server acknowledges Next and a new pair is due. Two holders of one state cannot both
// go on: what one of them makes known as next is not the last of the other.
type Token struct {
	Last []byte `cbor:"1,keyasint,omitempty"` // the Next of the pair before; empty in the first pair of a memory
	Next []byte `cbor:"2,keyasint"`
}

// TokenSize is the size of a rolling token's halves.
const TokenSize = 16

func (t *Token) check() error {
	if t != nil && (len(t.Next) != TokenSize || len(t.Last) != 0 && len(t.Last) != TokenSize || bytes.Equal(t.Last, t.Next)) {
		return fmt.Errorf("check-in: a token is two different values of %d bytes, or one", TokenSize)
	}
	return nil
}

// ConfigEntry is one named parameter.
type ConfigEntry struct {
	Name   string `cbor:"1,keyasint" json:"name"`
	Value  string `cbor:"2,keyasint" json:"value"`
	Secret bool   `cbor:"3,keyasint,omitempty" json:"secret,omitempty" doc:"its value is shown nowhere: what is told of it has none"` // once said of a name, it stays said
}

// Progress of a running update, bytes.
type Progress struct {
	Done uint64 `cbor:"1,keyasint" json:"done"`
	Of   uint64 `cbor:"2,keyasint" json:"of"`
}

// Outcome of a directive on the device.
type Outcome string

// Refused: a check failed, nothing was touched. Failed: acted on, did not work, the old state stands.
const (
	OutcomeDone    Outcome = "done"
	OutcomeRefused Outcome = "refused"
	OutcomeFailed  Outcome = "failed"
)

// Result tells what a device did with a delivery, and why.
type Result struct {
	Command []byte  `cbor:"1,keyasint" json:"command"` // digest of the command, as far as it could be read
	Act     Act     `cbor:"2,keyasint" json:"act"`
	Outcome Outcome `cbor:"3,keyasint" json:"outcome"`
	Code    string  `cbor:"4,keyasint,omitempty" json:"code,omitempty"` // stable reason, e.g. "threshold", "not-logged"
	Text    string  `cbor:"5,keyasint,omitempty" json:"text,omitempty"`
	At      uint64  `cbor:"6,keyasint" json:"at"`
	Seq     uint64  `cbor:"7,keyasint" json:"seq"` // rises with each result, so that a resent one is known
}

// CheckinReply says when to come back and what to do.
type CheckinReply struct {
	Time      uint64 `cbor:"1,keyasint"`            // the server's, seconds
	NextPoll  uint64 `cbor:"2,keyasint"`            // milliseconds from now
	Challenge []byte `cbor:"3,keyasint,omitempty"`  // 32 bytes: attest with this nonce
	Delivery  []byte `cbor:"4,keyasint,omitempty"`  // an encoded Delivery
	AckedSeq  uint64 `cbor:"5,keyasint"`            // results up to this are durable
	Standing  string `cbor:"6,keyasint"`            // the server's view of the device's state
	Token     []byte `cbor:"7,keyasint,omitempty"`  // the token's Next that the server has durably; only to who sent a token
	Bundle    uint64 `cbor:"10,keyasint,omitempty"` // the newest trust bundle, when nothing can be told to this device by the one it has
	Roll      uint64 `cbor:"8,keyasint,omitempty"`  // seconds that a pair of tokens lasts; beside that it ends with a restart
	Period    uint64 `cbor:"9,keyasint,omitempty"`  // since when the device belongs to its owner, Unix milliseconds: streams begin an epoch with another; 0: to nobody
}

// AttestReply is the verifier's answer to evidence.
type AttestReply struct {
	Status  string   `cbor:"1,keyasint"` // EAR status: affirming, warning, contraindicated, none
	Reasons []string `cbor:"2,keyasint,omitempty"`
	Signed  []byte   `cbor:"3,keyasint,omitempty"` // a Verdict, by the directive authority; the device confirms nothing without
	Keys    []Wrap   `cbor:"4,keyasint,omitempty"` // of the protected programs of what was measured; only to who asked by a code key
	NoKeys  string   `cbor:"5,keyasint,omitempty"` // why there are none
}

// Acceptable reports whether evidence with this EAR status is enough to work: to be activated, to keep a release on trial, to leave
// quarantine. Affirming is; a warning is too, because it names a weakness that is known and bears no sign of an attack (a key in
// software, a release that ought to be updated). Everything else is not, and neither is what nobody has judged. Server and device
// decide by this one rule.
func Acceptable(status string) bool { return status == "affirming" || status == "warning" }

// Bounds of the device API's bodies.
const (
	MaxCheckin      = 64 << 10
	MaxResults      = 32 // of a check-in: a device that has more tells the rest at the next
	MaxCheckinReply = 512 << 10
	MaxAttestReply  = 32 << 10 // with a key for each component
)

// EncodeCheckin writes c.
func EncodeCheckin(c Checkin) ([]byte, error) { return encode(c, MaxCheckin) }

// DecodeCheckin reads a check-in.
func DecodeCheckin(data []byte) (Checkin, error) { return decode[Checkin](data, MaxCheckin) }

func (c Checkin) check() error {
	if len(c.Nonce) != 32 {
		return fmt.Errorf("check-in: nonce of %d bytes, want 32", len(c.Nonce))
	}
	if c.Healthy && c.Sick {
		return errors.New("check-in: healthy and sick at once")
	}
	if len(c.State) == 0 || len(c.State) > 32 || len(c.Health) > 1024 || len(c.Version) > 64 {
		return errors.New("check-in: state, health or version out of bounds")
	}
	if err := c.Token.check(); err != nil {
		return err
	}
	if len(c.Left) > MaxLeft || slices.ContainsFunc(c.Left, func(d []byte) bool { return len(d) != sha256.Size }) {
		return fmt.Errorf("check-in: the releases that it left are at most %d digests of %d bytes", MaxLeft, sha256.Size)
	}
	if err := c.Room.check(); err != nil {
		return fmt.Errorf("check-in: %w", err)
	}
	if err := checkKnows(c.Knows); err != nil {
		return err
	}
	if err := c.Waits.check(); err != nil {
		return err
	}
	if len(c.Zone) > MaxZone {
		return fmt.Errorf("check-in: a zone's name of %d bytes, at most %d", len(c.Zone), MaxZone)
	}
	if len(c.Programs) > MaxComponents {
		return fmt.Errorf("check-in: %d programs, at most %d", len(c.Programs), MaxComponents)
	}
	for _, p := range c.Programs {
		if len(p.Program) > 64 || len(p.Parameters) > MaxGranted || len(p.Text) > MaxTold {
			return errors.New("check-in: what a program said of its parameters is out of bounds")
		}
	}
	if len(c.Results) > MaxResults {
		return fmt.Errorf("check-in: %d results, at most %d", len(c.Results), MaxResults)
	}
	for _, r := range c.Results {
		if len(r.Text) > 1024 || len(r.Code) > 64 || len(r.Act) > 32 {
			return errors.New("check-in: result out of bounds")
		}
		if r.Outcome != OutcomeDone && r.Outcome != OutcomeRefused && r.Outcome != OutcomeFailed {
			return fmt.Errorf("check-in: outcome %q", r.Outcome)
		}
	}
	return nil
}

func checkKnows(names []string) error {
	if len(names) > MaxKnows {
		return fmt.Errorf("check-in: it knows %d kinds, at most %d", len(names), MaxKnows)
	}
	for i, n := range names {
		if n == "" || len(n) > MaxKnown || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || i > 0 && names[i-1] >= n {
			return fmt.Errorf("check-in: it knows the kinds %q: each has at most %d small letters, digits and hyphens, and they rise", names, MaxKnown)
		}
	}
	return nil
}

// EncodeCheckinReply writes r.
func EncodeCheckinReply(r CheckinReply) ([]byte, error) { return encode(r, MaxCheckinReply) }

// CheckinSum is the digest of an encoded check-in but for its nonce: two that DecodeCheckin takes and that have one sum say the same. False when there is no
// nonce where a check-in has it, which says nothing of what there is instead.
func CheckinSum(data []byte) (sum [32]byte, ok bool) {
	head := 1 // of a map of up to 23 members; of more there are none
	if len(data) < head+len(nonceHead)+nonceSize || data[0]&0xe0 != 0xa0 || data[0] > 0xb7 || !bytes.Equal(data[head:head+len(nonceHead)], nonceHead) {
		return sum, false
	}
	h := sha256.New()
	_, _ = h.Write(data[:head]) // a hash takes everything
	_, _ = h.Write(data[head+len(nonceHead)+nonceSize:])
	return [32]byte(h.Sum(sum[:0])), true
}

const nonceSize = 32

// nonceHead is how the first member of an encoded check-in begins: key 1, a string of nonceSize bytes.
var nonceHead = []byte{0x01, 0x58, nonceSize}

// DecodeCheckinReply reads the reply.
func DecodeCheckinReply(data []byte) (CheckinReply, error) {
	return decode[CheckinReply](data, MaxCheckinReply)
}

func (r CheckinReply) check() error {
	if n := len(r.Challenge); n != 0 && n != 32 {
		return fmt.Errorf("check-in reply: challenge of %d bytes", n)
	}
	if n := len(r.Token); n != 0 && n != TokenSize {
		return fmt.Errorf("check-in reply: token of %d bytes", n)
	}
	return nil
}

// EncodeAttestReply writes r.
func EncodeAttestReply(r AttestReply) ([]byte, error) { return encode(r, MaxAttestReply) }

// DecodeAttestReply reads the verifier's answer.
func DecodeAttestReply(data []byte) (AttestReply, error) {
	return decode[AttestReply](data, MaxAttestReply)
}

func (r AttestReply) check() error {
	if len(r.Keys) > MaxComponents || len(r.NoKeys) > 512 {
		return errors.New("verdict: keys out of bounds")
	}
	for _, w := range r.Keys {
		if err := w.check(); err != nil {
			return fmt.Errorf("verdict: %w", err)
		}
	}
	return nil
}
