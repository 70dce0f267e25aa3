package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Act is what a device is told to do.
type Act string

// Routine acts need a directive. Guarded acts are reversible and end by themselves after their time to live unless renewed.
// Fatal acts need, besides the directive, an offline warrant; installing code has its offline threshold in the release itself.
const (
	ActAttest     Act = "attest"      // routine: prove your state now
	ActConfigure  Act = "configure"   // routine: take this configuration
	ActQuarantine Act = "quarantine"  // guarded: talk to nobody but us
	ActRelease    Act = "release"     // guarded: quarantine is over
	ActDormant    Act = "dormant"     // guarded: sleep
	ActWake       Act = "wake"        // guarded
	ActReset      Act = "reset"       // guarded: restart
	ActInstall    Act = "install"     // fatal class, threshold in the release
	ActRollback   Act = "rollback"    // fatal class, by the plan signed in the release one leaves
	ActReprovide  Act = "reprovision" // install the given release anew over whatever is there
	ActBundle     Act = "bundle"      // fatal class, threshold in the bundle
	ActWipe       Act = "wipe"        // fatal: warrant
	ActUnlock     Act = "debug-unlock"
	ActAdopt      Act = "adopt"  // fatal class: belong to an owner; see ChangesOwner
	ActDisown     Act = "disown" // fatal class: belong to nobody, and forget what was the owner's
	ActRehome     Act = "rehome" // fatal: warrant, of the owner's key too where there is one: believe another instance, for good
)

// Class says what a stolen online key could do with an act.
type Class int

// The classes of harm.
const (
	Routine Class = iota
	Guarded
	Fatal
)

// ClassOf gives the class of an act. An act it does not know is Fatal.
func ClassOf(a Act) Class {
	switch a {
	case ActAttest, ActConfigure:
		return Routine
	case ActQuarantine, ActRelease, ActDormant, ActWake, ActReset:
		return Guarded
	case ActInstall, ActRollback, ActReprovide, ActBundle, ActWipe, ActUnlock, ActAdopt, ActDisown, ActRehome:
		return Fatal
	}
	return Fatal
}

// NeedsRelease reports whether the act brings code, whose offline threshold is in the release.
func NeedsRelease(a Act) bool { return a == ActInstall || a == ActRollback || a == ActReprovide }

// NeedsWarrant reports whether the act is fatal and carries no offline threshold of its own.
func NeedsWarrant(a Act) bool {
	return ClassOf(a) == Fatal && !NeedsRelease(a) && a != ActBundle && !ChangesOwner(a)
}

// ChangesOwner reports whether the act changes whom a device belongs to. Whether that needs a warrant is the device's to know: one that
// belongs to nobody may be adopted, and told to forget what it was told, by a directive alone; one that has an owner does neither without a
// warrant of the owner's key, or of the product's warrant threshold.
func ChangesOwner(a Act) bool { return a == ActAdopt || a == ActDisown }

// MaxCounterGap is by how much a directive's counter may rise at once. A device takes no larger step, so that a stolen directive key
// cannot use the counter up; a server that lost its counter mends a smaller one.
const MaxCounterGap = 1 << 20

// MaxGuardedTTL is the longest a device stays in a guarded state without renewal, seconds.
const MaxGuardedTTL = 7 * 24 * 3600

// Command is a decision of the online authority over a set of devices, signed and logged once, before any device hears of
// it. A wave of a rollout is a Command.
type Command struct {
	ID      string    `cbor:"1,keyasint" json:"id"`
	Product string    `cbor:"2,keyasint" json:"product"`
	Act     Act       `cbor:"3,keyasint" json:"act"`
	Devices DeviceSet `cbor:"4,keyasint" json:"devices"`
	Release []byte    `cbor:"5,keyasint,omitempty" json:"release,omitempty"` // digest, for acts that bring code
	Rollout string    `cbor:"6,keyasint,omitempty" json:"rollout,omitempty"`
	Wave    uint      `cbor:"7,keyasint,omitempty" json:"wave,omitempty"`
	TTL     uint64    `cbor:"8,keyasint,omitempty" json:"ttl_s,omitempty"`  // guarded acts: seconds until the device ends it by itself
	Config  []byte    `cbor:"9,keyasint,omitempty" json:"config,omitempty"` // configure, adopt: ConfigDigest of what the delivery brings
	Issued  uint64    `cbor:"11,keyasint" json:"issued"`
	Expires uint64    `cbor:"12,keyasint" json:"expires"`
	Window  *Window   `cbor:"13,keyasint,omitempty" json:"window,omitempty"`  // install: when it is carried out; nil: at any time. Only to devices that know KnowsWindow
	Manner  Manner    `cbor:"14,keyasint,omitempty" json:"manner,omitempty"`  // install: what has to be, before it is. Only to devices that know KnowsManner
	Grace   uint64    `cbor:"15,keyasint,omitempty" json:"grace_s,omitempty"` // of Soft: seconds after which it is forced
	Alone   bool      `cbor:"16,keyasint,omitempty" json:"alone,omitempty"`   // install: by hand too, where no verifier is asked before the release is kept; only to who knows KnowsCarton
}

// Warrant is the offline threshold's leave for a fatal act: which devices, how many, until when.
type Warrant struct {
	ID      string    `cbor:"1,keyasint" json:"id"`
	Product string    `cbor:"2,keyasint" json:"product"`
	Act     Act       `cbor:"3,keyasint" json:"act"`
	Devices DeviceSet `cbor:"4,keyasint" json:"devices"`
	Reason  string    `cbor:"5,keyasint,omitempty" json:"reason,omitempty"`
	Issued  uint64    `cbor:"6,keyasint" json:"issued"`
	Expires uint64    `cbor:"7,keyasint" json:"expires"`
	Owner   []byte    `cbor:"8,keyasint,omitempty" json:"owner,omitempty"` // adopt, disown, rehome: the ownership that it ends (Ownership.Owner); the owner's own key signs for no other
	Home    *Home     `cbor:"9,keyasint,omitempty" json:"home,omitempty"`  // rehome: where to
}

// Directive tells one device to carry out a command, now. It is made when the device asks, for the nonce it gave.
type Directive struct {
	Device  string `cbor:"1,keyasint" json:"device"`
	Counter uint64 `cbor:"2,keyasint" json:"counter"` // strictly rising per device
	Nonce   []byte `cbor:"3,keyasint" json:"nonce"`   // the device's, 32 bytes
	Act     Act    `cbor:"4,keyasint" json:"act"`
	Command []byte `cbor:"5,keyasint" json:"command"` // SHA-256 of the command's payload
	Issued  uint64 `cbor:"6,keyasint" json:"issued"`
	Expires uint64 `cbor:"7,keyasint" json:"expires"`
}

// OfflineDirective tells one device to carry out a command that is brought to it by hand. It answers no nonce: the counter, which no other directive of the device may have
// passed, and its end are all that says that it is of now. It is of a type of its own, so that neither kind stands for the other.
type OfflineDirective struct {
	Device  string `cbor:"1,keyasint" json:"device"`
	Counter uint64 `cbor:"2,keyasint" json:"counter"` // of the same row as those of Directive
	Command []byte `cbor:"3,keyasint" json:"command"` // SHA-256 of the command's payload
	Issued  uint64 `cbor:"4,keyasint" json:"issued"`
	Expires uint64 `cbor:"5,keyasint" json:"expires"`
}

// MaxOffline is the longest that an OfflineDirective lasts, and that proofs which come with it may be old, seconds.
const MaxOffline = 90 * 24 * 3600

// KnowsCarton is said by a device that installs from a carton, and knows Command.Alone: see wire/carton.
const KnowsCarton = "carton1"

// Delivery is all a device needs to decide for itself whether to act.
type Delivery struct {
	Directive     []byte      `cbor:"1,keyasint"` // COSE_Sign1(Directive)
	Command       Logged      `cbor:"2,keyasint"` // entry of kind command.issued
	Member        Membership  `cbor:"3,keyasint"`
	Release       *Logged     `cbor:"4,keyasint,omitempty"` // entry of kind release.published
	Warrant       *Logged     `cbor:"5,keyasint,omitempty"` // entry of kind warrant.issued
	WarrantMember *Membership `cbor:"6,keyasint,omitempty"`
	Bundle        *Logged     `cbor:"7,keyasint,omitempty"` // entry of kind bundle.published
	Config        []byte      `cbor:"8,keyasint,omitempty"` // configure, adopt: salt and entries, or ownership, see SaltConfig; rehome: the signed trust bundle of the home
	Forms         []Form      `cbor:"9,keyasint,omitempty"` // other ways to the release's components; only to who knows their kinds (Checkin.Knows)
}

// Bounds of the encoded messages.
const (
	MaxCommand   = 16 << 10
	MaxDirective = 1 << 10
	MaxDelivery  = 256 << 10
)

// EncodeCommand writes c.
func EncodeCommand(c Command) ([]byte, error) { return encode(c, MaxCommand) }

// DecodeCommand reads a command's payload.
func DecodeCommand(data []byte) (Command, error) { return decode[Command](data, MaxCommand) }

func (c Command) check() error {
	if err := checkScope("command", c.ID, c.Product, c.Act, c.Devices, c.Issued, c.Expires); err != nil {
		return err
	}
	if NeedsRelease(c.Act) != (len(c.Release) == sha256.Size) {
		return fmt.Errorf("command %s: release digest of %d bytes for act %s", c.ID, len(c.Release), c.Act)
	}
	if (c.Act == ActConfigure || c.Act == ActAdopt) != (len(c.Config) == sha256.Size) {
		return fmt.Errorf("command %s: configuration digest of %d bytes for act %s", c.ID, len(c.Config), c.Act)
	}
	if err := c.checkManner(); err != nil {
		return fmt.Errorf("command %s: %w", c.ID, err)
	}
	if c.Alone && c.Act != ActInstall {
		return fmt.Errorf("command %s: %s is not carried out alone", c.ID, c.Act)
	}
	if c.Act == ActQuarantine || c.Act == ActDormant {
		if c.TTL == 0 || c.TTL > MaxGuardedTTL {
			return fmt.Errorf("command %s: time to live %d s, must be 1 to %d", c.ID, c.TTL, MaxGuardedTTL)
		}
	}
	return nil
}

// EncodeWarrant writes w.
func EncodeWarrant(w Warrant) ([]byte, error) { return encode(w, MaxCommand) }

// DecodeWarrant reads a warrant's payload.
func DecodeWarrant(data []byte) (Warrant, error) { return decode[Warrant](data, MaxCommand) }

func (w Warrant) check() error {
	if len(w.Owner) != 0 && (len(w.Owner) != sha256.Size || !ChangesOwner(w.Act) && w.Act != ActRehome) {
		return fmt.Errorf("warrant %s: owner's digest of %d bytes for act %s", w.ID, len(w.Owner), w.Act)
	}
	if (w.Act == ActRehome) != (w.Home != nil) {
		return fmt.Errorf("warrant %s: a home for act %s, or none for %s", w.ID, w.Act, ActRehome)
	}
	if w.Home != nil {
		if err := w.Home.check(); err != nil {
			return fmt.Errorf("warrant %s: %w", w.ID, err)
		}
	}
	return checkScope("warrant", w.ID, w.Product, w.Act, w.Devices, w.Issued, w.Expires)
}

func checkScope(what, id, product string, act Act, devices DeviceSet, issued, expires uint64) error {
	switch {
	case id == "" || len(id) > 64 || product == "" || act == "":
		return fmt.Errorf("%s: no id, product or act", what)
	case len(devices.Root) != sha256.Size || devices.Count == 0:
		return fmt.Errorf("%s %s: no devices", what, id)
	case expires <= issued:
		return fmt.Errorf("%s %s: expires before it is issued", what, id)
	}
	return nil
}

// EncodeDirective writes d.
func EncodeDirective(d Directive) ([]byte, error) { return encode(d, MaxDirective) }

// DecodeDirective reads a directive's payload.
func DecodeDirective(data []byte) (Directive, error) { return decode[Directive](data, MaxDirective) }

func (d Directive) check() error {
	switch {
	case d.Device == "" || d.Act == "":
		return errors.New("directive: no device or act")
	case len(d.Nonce) != 32 || len(d.Command) != sha256.Size:
		return errors.New("directive: nonce or command digest is not 32 bytes")
	case d.Counter == 0 || d.Expires <= d.Issued:
		return errors.New("directive: no counter, or expires before it is issued")
	}
	return nil
}

// EncodeOfflineDirective writes d.
func EncodeOfflineDirective(d OfflineDirective) ([]byte, error) { return encode(d, MaxDirective) }

// DecodeOfflineDirective reads one's payload.
func DecodeOfflineDirective(data []byte) (OfflineDirective, error) {
	return decode[OfflineDirective](data, MaxDirective)
}

func (d OfflineDirective) check() error {
	switch {
	case d.Device == "" || len(d.Device) > 64 || len(d.Command) != sha256.Size || d.Counter == 0:
		return errors.New("offline directive: no device or counter, or a command digest that is not 32 bytes")
	case d.Expires <= d.Issued || d.Expires-d.Issued > MaxOffline:
		return fmt.Errorf("offline directive: it lasts from %d to %d, at most %d s", d.Issued, d.Expires, MaxOffline)
	}
	return nil
}

// EncodeDelivery writes d.
func EncodeDelivery(d Delivery) ([]byte, error) { return bounded(d, MaxDelivery) }

// DecodeDelivery reads a delivery.
func DecodeDelivery(data []byte) (Delivery, error) {
	var d Delivery
	if err := Unmarshal(data, &d, MaxDelivery); err != nil {
		return Delivery{}, err
	}
	return d, checkForms(d.Forms)
}
