package watch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// Policy says what is expected. What is absent is taken from the log's own beginning: a policy that says nothing still holds every
// later entry to those before it, and believes the first.
type Policy struct {
	// Products that there are; absent: any.
	Products map[string]Product `json:"products,omitempty"`
	// Authorities are the certificate authorities, but for those of orders: by a name for people, the SHA-256 of the certificate. Absent:
	// those that were there when the first trust bundle was published.
	Authorities map[string]string `json:"authorities,omitempty"`
	// Keys are those that the instance may say it has made: by a name for people, the key ID. Absent: as for authorities.
	Keys map[string]string `json:"keys,omitempty"`
	// Administrators may have the role of that name. Absent: the first who was given it.
	Administrators []string `json:"administrators,omitempty"`
	// DevicesPerHour is how many devices the commands of an act may be for within an hour. An act that is not named has its default:
	// 100 of what is guarded or needs a warrant, any number of what brings releases and bundles, which have their own signatures.
	DevicesPerHour map[wire.Act]uint64 `json:"devices_per_hour,omitempty"`
	// WarrantDevices is how many devices one warrant may be for; absent: 100.
	WarrantDevices uint64 `json:"warrant_devices,omitempty"`
	// Devices is how many devices are remembered, some 150 bytes each; absent: 1,000,000. More than that are told, not dropped silently.
	Devices int `json:"devices,omitempty"`
	// Off are rules that are not wanted.
	Off []string `json:"off,omitempty"`
}

// Product is what is expected of a product. Each signer must also be one of the trust bundle in force.
type Product struct {
	Root      *Signers          `json:"root,omitempty"`      // of trust bundles
	Release   *Signers          `json:"release,omitempty"`   // of releases
	Warrant   *Signers          `json:"warrant,omitempty"`   // of warrants
	Directive *Signers          `json:"directive,omitempty"` // of commands; the threshold is 1
	Witnesses map[string]string `json:"witnesses,omitempty"` // that must stay in the bundle: by name, the key (hex)
	Quorum    uint              `json:"quorum,omitempty"`    // at least
	// Hardware revisions and components that a release may name; absent: any.
	Hardware   []string `json:"hardware,omitempty"`
	Components []string `json:"components,omitempty"`
}

// Signers are the keys of a role, by a name for people their IDs, and how many of them must have signed at least.
type Signers struct {
	Keys      map[string]string `json:"keys"`
	Threshold uint              `json:"threshold"`
}

// What a policy holds when it does not say otherwise.
const (
	defaultPerHour = 100
	defaultWarrant = 100
	defaultDevices = 1_000_000
	maxPolicy      = 1 << 20
)

// DecodePolicy reads a policy file (JSON). A member that is unknown, in other letters or there twice is an error, and so is a rule or
// an act that does not exist: each could switch off what was meant to be on.
func DecodePolicy(data []byte) (Policy, error) {
	var p Policy
	if len(data) > maxPolicy {
		return p, fmt.Errorf("%d bytes, at most %d", len(data), maxPolicy)
	}
	if err := once(data); err != nil {
		return p, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, err
	}
	if err := sameNames(data, p); err != nil {
		return p, err
	}
	return p, p.check()
}

// once refuses a member that is there twice, and what follows the document.
func once(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var value func(depth int) error
	value = func(depth int) error {
		tok, err := d.Token()
		delim, nested := tok.(json.Delim)
		if err != nil || !nested {
			return err
		}
		if depth > 8 {
			return errors.New("nested too deep")
		}
		seen := map[any]bool{}
		for d.More() {
			if delim == '{' {
				name, err := d.Token()
				if err != nil {
					return err
				}
				if seen[name] {
					return fmt.Errorf("member %q is there twice", name)
				}
				seen[name] = true
			}
			if err := value(depth + 1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	if err := value(0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}

// sameNames refuses members whose names differ from the policy's in upper and lower case, or whose value says nothing: what is read
// must come out again.
func sameNames(data []byte, p Policy) error {
	again, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var in, out any
	if err := errors.Join(json.Unmarshal(data, &in), json.Unmarshal(again, &out)); err != nil {
		return err
	}
	object, ok := in.(map[string]any)
	if !ok {
		return errors.New("not an object")
	}
	return within(object, out.(map[string]any), "")
}

func within(in, out map[string]any, path string) error {
	for name, v := range in {
		w, there := out[name]
		if !there {
			return fmt.Errorf("member %s%s is unknown, or empty: leave it out", path, name)
		}
		if inner, ok := v.(map[string]any); ok {
			if err := within(inner, w.(map[string]any), path+name+"."); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p Policy) check() error {
	for id, product := range p.Products {
		for role, s := range map[string]*Signers{"root": product.Root, "release": product.Release, "warrant": product.Warrant, "directive": product.Directive} {
			if err := s.check(); err != nil {
				return fmt.Errorf("product %s, %s: %w", id, role, err)
			}
		}
		if product.Quorum > uint(len(product.Witnesses)) && len(product.Witnesses) > 0 {
			return fmt.Errorf("product %s: quorum %d of %d witnesses", id, product.Quorum, len(product.Witnesses))
		}
		if err := hexes(product.Witnesses, 32, "witness"); err != nil {
			return fmt.Errorf("product %s: %w", id, err)
		}
	}
	if err := errors.Join(hexes(p.Authorities, sha256.Size, "authority"), hexes(p.Keys, 16, "key")); err != nil {
		return err
	}
	for act := range p.DevicesPerHour {
		if !slices.Contains(acts(), act) {
			return fmt.Errorf("devices_per_hour: there is no act %q; there are %v", act, acts())
		}
	}
	for _, name := range p.Off {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) {
			return fmt.Errorf("off: there is no rule %q; `hallmark log watch --rules` lists them", name)
		}
	}
	if p.Devices < 0 {
		return fmt.Errorf("devices: %d", p.Devices)
	}
	return nil
}

func (s *Signers) check() error {
	if s == nil {
		return nil
	}
	if err := hexes(s.Keys, 16, "key"); err != nil {
		return err
	}
	ids := map[string]bool{}
	for name, id := range s.Keys {
		if ids[id] {
			return fmt.Errorf("key %s is there under two names, of which %s is one", id, name)
		}
		ids[id] = true
	}
	if s.Threshold < 1 || s.Threshold > uint(len(s.Keys)) {
		return fmt.Errorf("threshold %d of %d keys", s.Threshold, len(s.Keys))
	}
	return nil
}

func hexes(m map[string]string, size int, what string) error {
	for name, s := range m {
		raw, err := hex.DecodeString(s)
		if err != nil || len(raw) != size || hex.EncodeToString(raw) != s {
			return fmt.Errorf("%s %q: %.80q is not %d bytes in lower-case hexadecimal", what, name, s, size)
		}
	}
	return nil
}

func acts() []wire.Act {
	return []wire.Act{
		wire.ActAttest, wire.ActConfigure, wire.ActQuarantine, wire.ActRelease, wire.ActDormant, wire.ActWake, wire.ActReset, wire.ActInstall,
		wire.ActRollback, wire.ActReprovide, wire.ActBundle, wire.ActWipe, wire.ActUnlock,
	}
}

func (p Policy) isOff(rule string) bool { return slices.Contains(p.Off, rule) }

// Digest changes with the policy.
func (p Policy) Digest() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// perHour is for how many devices an act may be within an hour; ok is false for any number.
func (p Policy) perHour(act wire.Act) (n uint64, ok bool) {
	if n, ok := p.DevicesPerHour[act]; ok {
		return n, true
	}
	if wire.ClassOf(act) == wire.Guarded || wire.NeedsWarrant(act) {
		return defaultPerHour, true
	}
	return 0, false
}

func (p Policy) warrantDevices() uint64 {
	if p.WarrantDevices == 0 {
		return defaultWarrant
	}
	return p.WarrantDevices
}

func (p Policy) devices() int {
	if p.Devices == 0 {
		return defaultDevices
	}
	return p.Devices
}

// may says whether a key is on the list; without a list every one is, and the trust bundle decides.
func (s *Signers) may(id string) bool {
	if s == nil {
		return true
	}
	for _, k := range s.Keys {
		if k == id {
			return true
		}
	}
	return false
}

// narrow is the role of a trust bundle without the keys that are not on the list, and with the threshold that is asked for.
func (s *Signers) narrow(role wire.KeySet) wire.KeySet {
	out := wire.KeySet{Threshold: role.Threshold}
	for _, k := range role.Keys {
		if s.may(keyID(k)) {
			out.Keys = append(out.Keys, k)
		}
	}
	if s != nil {
		out.Threshold = max(out.Threshold, s.Threshold)
	}
	return out
}

func has(m map[string]string, value string) bool {
	for _, v := range m {
		if v == value {
			return true
		}
	}
	return false
}
