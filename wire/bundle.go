package wire

import (
	"errors"
	"fmt"
	"slices"
)

// Bundle is the trust bundle on a device: whom it believes, for what, and how many of them it asks for. It is signed by the
// threshold of its own root keys and, when it replaces another, by the threshold of the other's too (TUF's rotation rule).
type Bundle struct {
	Version   uint64      `cbor:"1,keyasint" json:"version"`
	Product   string      `cbor:"2,keyasint" json:"product"`
	Root      KeySet      `cbor:"3,keyasint" json:"root"`      // signs the next bundle
	Release   KeySet      `cbor:"4,keyasint" json:"release"`   // offline: what may run
	Warrant   KeySet      `cbor:"5,keyasint" json:"warrant"`   // offline: fatal acts
	Directive KeySet      `cbor:"6,keyasint" json:"directive"` // online: to whom and when
	Control   LogTrust    `cbor:"7,keyasint" json:"control"`
	Events    LogTrust    `cbor:"8,keyasint" json:"events"`
	Witnesses []NamedKey  `cbor:"9,keyasint" json:"witnesses"`
	Quorum    uint        `cbor:"10,keyasint" json:"quorum"`                     // witnesses that must have cosigned
	MaxAge    uint64      `cbor:"11,keyasint" json:"max_age_s"`                  // of a checkpoint's cosignatures, seconds
	Floor     uint32      `cbor:"12,keyasint" json:"floor"`                      // lowest security counter that may be installed or booted
	Anchors   [][]byte    `cbor:"13,keyasint" json:"anchors"`                    // X.509 roots (DER) for the network peers
	Suites    []string    `cbor:"14,keyasint" json:"suites"`                     // suites this product accepts
	Issued    uint64      `cbor:"15,keyasint" json:"issued"`                     // seconds since 1970
	Telemetry []StreamKey `cbor:"16,keyasint" json:"telemetry"`                  // key-access keys to seal data for
	Orders    *KeySet     `cbor:"17,keyasint,omitempty" json:"orders,omitempty"` // signs production orders; absent in bundles of before

	BootManagers []BootManager `cbor:"18,keyasint,omitempty" json:"boot_managers,omitempty"` // that may start; none: it does not say

	Install uint32 `cbor:"19,keyasint,omitempty" json:"install,omitempty"` // lowest security counter that may be installed, above Floor: what runs below it goes on; absent: Floor

	Offline uint64 `cbor:"20,keyasint,omitempty" json:"offline_s,omitempty"` // MaxAge of what is brought by hand, seconds; absent: MaxAge
}

// LogTrust is a log the device believes: its origin line and Ed25519 key (32 bytes).
type LogTrust struct {
	Origin string `cbor:"1,keyasint" json:"origin"`
	Key    []byte `cbor:"2,keyasint" json:"key"`
}

// NamedKey is a witness: its name and Ed25519 key (32 bytes).
type NamedKey struct {
	Name string `cbor:"1,keyasint" json:"name"`
	Key  []byte `cbor:"2,keyasint" json:"key"`
}

// StreamKey is the public key of a retention bucket of the key-access service.
type StreamKey struct {
	Bucket string `cbor:"1,keyasint" json:"bucket"`
	KEM    uint16 `cbor:"2,keyasint" json:"kem"` // HPKE KEM identifier (IANA), 0x0050 is MLKEM768-P256
	Key    []byte `cbor:"3,keyasint" json:"key"`
}

// MaxBundle bounds an encoded Bundle.
const MaxBundle = 32 << 10

// EncodeBundle writes b.
func EncodeBundle(b Bundle) ([]byte, error) { return encode(b, MaxBundle) }

// DecodeBundle reads a bundle's payload; its signatures are VerifyBundle's to check.
func DecodeBundle(data []byte) (Bundle, error) { return decode[Bundle](data, MaxBundle) }

func (b Bundle) check() error {
	if b.Version == 0 || b.Product == "" {
		return errors.New("bundle: no version or product")
	}
	for _, r := range []struct {
		name string
		set  KeySet
	}{{"root", b.Root}, {"release", b.Release}, {"warrant", b.Warrant}, {"directive", b.Directive}} {
		if err := r.set.Check(); err != nil {
			return fmt.Errorf("bundle: role %s: %w", r.name, err)
		}
	}
	if b.Orders != nil {
		if err := b.Orders.Check(); err != nil {
			return fmt.Errorf("bundle: role orders: %w", err)
		}
	}
	if err := errors.Join(b.checkSuites(), b.checkBootManagers()); err != nil {
		return err
	}
	if b.Install != 0 && b.Install <= b.Floor {
		return fmt.Errorf("bundle: from security counter %d on is installed, and below %d nothing starts: leave the first out", b.Install, b.Floor)
	}
	if b.Offline != 0 && (b.MaxAge == 0 || b.Offline <= b.MaxAge || b.Offline > MaxOffline) {
		return fmt.Errorf("bundle: what is brought by hand may be %d s old, and all else %d: more than that, and at most %d, or leave it out", b.Offline, b.MaxAge, MaxOffline)
	}
	if b.Quorum > uint(len(b.Witnesses)) {
		return fmt.Errorf("bundle: quorum %d of %d witnesses", b.Quorum, len(b.Witnesses))
	}
	for _, l := range []LogTrust{b.Control, b.Events} {
		if l.Origin == "" || len(l.Key) != 32 {
			return errors.New("bundle: log without origin or 32-byte key")
		}
	}
	seen := map[string]bool{}
	for _, w := range b.Witnesses {
		if w.Name == "" || len(w.Key) != 32 || seen[w.Name] || seen[string(w.Key)] {
			return errors.New("bundle: witness without name or 32-byte key, or named twice")
		}
		seen[w.Name], seen[string(w.Key)] = true, true
	}
	return nil
}

// checkSuites refuses a bundle that names a key of a suite which it does not accept: nothing that was signed in another suite has any
// effect under it.
func (b Bundle) checkSuites() error {
	roles := []KeySet{b.Root, b.Release, b.Warrant, b.Directive}
	if b.Orders != nil {
		roles = append(roles, *b.Orders)
	}
	for _, role := range roles {
		for _, der := range role.Keys {
			pub, err := ParseKey(der)
			if err != nil {
				return fmt.Errorf("bundle: %w", err)
			}
			_, suite, err := algOf(pub)
			if err != nil {
				return fmt.Errorf("bundle: %w", err)
			}
			if !b.Accepts(suite) {
				return fmt.Errorf("bundle: %w: key %x is of suite %s, the bundle accepts %v", ErrSuite, KeyIDOfSPKI(der), suite, b.Suites)
			}
		}
	}
	return nil
}

// ErrSuite says that something is signed, or would be, in a suite that is not accepted.
var ErrSuite = errors.New("suite not accepted")

// Accepts reports whether the bundle lists the suite.
func (b Bundle) Accepts(suite string) bool { return slices.Contains(b.Suites, suite) }

// Foreign gives a suite that a signature of a threshold message names and the bundle does not accept; empty when there is none.
func (b Bundle) Foreign(typ Type, envelope []byte) string {
	msg, err := parseThreshold(typ, envelope)
	if err != nil {
		return ""
	}
	for _, s := range msg.Signatures {
		if name, ok := s.Headers.Protected[labelSuite].(string); ok && !b.Accepts(name) {
			return name
		}
	}
	return ""
}

// Foreign1 is Foreign of a message with one signer.
func (b Bundle) Foreign1(typ Type, envelope []byte) string {
	o, err := Parse1(typ, envelope)
	if err != nil {
		return ""
	}
	if name, ok := o.msg.Headers.Protected[labelSuite].(string); ok && !b.Accepts(name) {
		return name
	}
	return ""
}

// VerifyBundle checks that envelope may replace current: same product, the next version, signed by the threshold of both.
// With a nil current it is the first bundle, signed by its own root: the caller must anchor it otherwise (the fuses do).
func VerifyBundle(current *Bundle, envelope []byte) (Bundle, error) {
	payload, _, err := ThresholdPayload(TypeBundle, envelope)
	if err != nil {
		return Bundle{}, err
	}
	next, err := DecodeBundle(payload)
	if err != nil {
		return Bundle{}, err
	}
	if _, err := VerifyThreshold(TypeBundle, envelope, next.Root); err != nil {
		return Bundle{}, fmt.Errorf("by its own root: %w", err)
	}
	if current == nil {
		return next, nil
	}
	if _, err := VerifyThreshold(TypeBundle, envelope, current.Root); err != nil {
		return Bundle{}, fmt.Errorf("by the current root: %w", err)
	}
	if next.Product != current.Product {
		return Bundle{}, fmt.Errorf("bundle is for product %q, this is %q", next.Product, current.Product)
	}
	if next.Version != current.Version+1 {
		return Bundle{}, fmt.Errorf("bundle version %d does not follow %d", next.Version, current.Version)
	}
	if next.Floor < current.Floor {
		return Bundle{}, fmt.Errorf("bundle lowers the security floor from %d to %d", current.Floor, next.Floor)
	}
	if next.Least() < current.Least() {
		return Bundle{}, fmt.Errorf("bundle lets security counter %d be installed again, %d is the least", next.Least(), current.Least())
	}
	return next, nil
}

// Least is the lowest security counter that may be installed. What may start is Floor's to say: what runs when its release is closed goes on.
func (b Bundle) Least() uint32 { return max(b.Floor, b.Install) }

// find gives the key of the role that kid names.
func (s KeySet) find(kid KeyID) ([]byte, bool) {
	for _, der := range s.Keys {
		if KeyIDOfSPKI(der) == kid {
			return der, true
		}
	}
	return nil, false
}

// Verify1 checks a COSE_Sign1 by any one key of the role, and returns the payload.
func (s KeySet) Verify1(typ Type, envelope []byte) ([]byte, error) {
	o, err := Parse1(typ, envelope)
	if err != nil {
		return nil, err
	}
	der, ok := s.find(o.KeyID)
	if !ok {
		return nil, fmt.Errorf("%s: key %x is not in the role", typ, o.KeyID)
	}
	pub, err := ParseKey(der)
	if err != nil {
		return nil, err
	}
	if err := o.Verify(pub); err != nil {
		return nil, err
	}
	return o.Payload, nil
}

// Has reports whether kid names a key of the role.
func (s KeySet) Has(kid KeyID) bool { _, ok := s.find(kid); return ok }
