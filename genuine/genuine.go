// Package genuine answers anybody who holds a device, or thinks of buying it, what its maker knows of it.
//
// Over all stages, read side. It says what the ledger and the registry say, as a list of dated statements and one headline, signed, with the
// places of the facts it rests on; and it hands an asker's question on to the device itself. What it guarantees: unknown never reads as good;
// nothing about owners, people, places, orders or stations leaves; what strangers ask costs no more than is bounded here, whoever they are.
// It has no caller: everybody is a stranger. It trusts the registry, and signs with a key that can do nothing else.
package genuine

import (
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

// Word is a statement about a device.
type Word string

// The words, in the order in which they make the headline.
const (
	Unknown        Word = "unknown" // the maker cannot say that it made it
	Stolen         Word = "stolen"
	SuspectedClone Word = "suspected-clone" // two pieces may say that they are it
	Lost           Word = "lost"            // reported lost
	Decommissioned Word = "decommissioned"  // taken out of service for good
	Moved          Word = "moved"           // its owner runs it, and says what it is from then on
	Recalled       Word = "recalled"
	HeldBack       Word = "held-back" // in quarantine; why is not a buyer's business
	Replaced       Word = "replaced"  // another device has its place; which is not told
	Imported       Word = "imported"  // another maker's, taken in: no production record here
	SupportEnded   Word = "support-ended"
	Refurbished    Word = "refurbished"
	Resold         Word = "resold"
	Genuine        Word = "genuine" // made by this maker, with its production record

	// These are said beside, and are never the headline.
	Replacement Word = "replacement"  // it took the place of another device
	Rekeyed     Word = "rekeyed"      // it got new keys in the field, after losing those from the factory
	SupportEnds Word = "support-ends" // the end is known and ahead
	Simulated   Word = "simulated"    // software that stands for a device
)

// headlines are the words that may be one, the first that is said being it.
var headlines = [...]Word{
	Unknown, Stolen, SuspectedClone, Lost, Decommissioned, Recalled, Moved, HeldBack, Replaced, Imported, SupportEnded, Refurbished, Resold, Genuine,
}

// Record is what registry and ledger know of a device.
type Record struct {
	Known    bool // it is in the registry
	Device   device.Device
	Product  string             // its name for people
	Support  time.Time          // end of support of the product; zero: not known
	Imported bool               // another maker made it
	Rekeyed  time.Time          // zero: never
	Since    map[Word]time.Time // when what is said began, as far as it is known
	Text     map[Word]string    // public words of the maker: why it is recalled and what to do
	Facts    []Fact             // that it rests on
	Unplaced uint64             // facts about it that have no place yet
}

// Fact is a fact's place.
type Fact struct {
	Log   string
	Index uint64
	Kind  string
}

// Said is one statement.
type Said struct {
	Word  Word      `json:"word"`
	Since time.Time `json:"since,omitzero"` // a day
	Text  string    `json:"text,omitempty"`
}

// Judgement is what is said of a device.
type Judgement struct {
	Headline Word
	Says     []Said
}

// Judge says what a record amounts to at now.
func Judge(r Record, now time.Time) Judgement {
	var j Judgement
	say := func(w Word) {
		j.Says = append(j.Says, Said{Word: w, Since: day(r.Since[w]), Text: r.Text[w]})
	}
	made(r, say)
	if slices.ContainsFunc(j.Says, func(s Said) bool { return s.Word == Unknown }) {
		return Judgement{Headline: Unknown, Says: []Said{{Word: Unknown}}}
	}
	stands(r, say)
	d := r.Device
	if d.ReplacedBy != "" {
		say(Replaced)
	}
	if d.Replaces != "" {
		say(Replacement)
	}
	if !r.Rekeyed.IsZero() {
		j.Says = append(j.Says, Said{Word: Rekeyed, Since: day(r.Rekeyed)})
	}
	switch {
	case r.Support.IsZero():
	case now.Before(r.Support):
		j.Says = append(j.Says, Said{Word: SupportEnds, Since: day(r.Support)})
	default:
		j.Says = append(j.Says, Said{Word: SupportEnded, Since: day(r.Support)})
	}
	if d.Virtual {
		say(Simulated)
	}
	for _, w := range headlines {
		if slices.ContainsFunc(j.Says, func(s Said) bool { return s.Word == w }) {
			j.Headline = w
			break
		}
	}
	return j
}

// made says where it comes from. Only a verified production record, or another maker's word that was taken in, makes it known.
func made(r Record, say func(Word)) {
	d := r.Device
	switch {
	case !r.Known || !device.Known(d.State):
		say(Unknown) // it was never made, as far as anybody knows
	case r.Imported:
		say(Imported)
	case d.Legitimacy == device.Genuine, d.Legitimacy == device.Refurbished, d.Legitimacy == device.Resold, d.Legitimacy == device.Recalled, d.Legitimacy == device.Stolen:
		say(Genuine)
	default:
		say(Unknown)
	}
}

// stands says what has become of it.
func stands(r Record, say func(Word)) {
	d := r.Device
	switch d.Legitimacy {
	case device.Stolen:
		say(Stolen)
	case device.Recalled:
		say(Recalled)
	case device.Refurbished:
		say(Refurbished)
	case device.Resold:
		say(Resold)
	case device.Genuine, device.Unknown, device.Imported:
	}
	switch d.State {
	case device.Suspected:
		say(SuspectedClone)
	case device.Quarantined:
		say(HeldBack)
	case device.Lost:
		say(Lost)
	case device.Decommissioning, device.Decommissioned, device.Disposed:
		say(Decommissioned)
	case device.Moved:
		say(Moved)
	case device.Provisioned, device.Onboarded, device.Active, device.Dormant, device.Maintenance:
	}
	if d.State != device.Suspected && d.Twin.Suspect != "" {
		say(SuspectedClone) // nobody has looked into it yet
	}
}

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

func month(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Date(t.UTC().Year(), t.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
}

func seconds(t time.Time) uint64 {
	if t.IsZero() || t.Unix() < 0 {
		return 0
	}
	return uint64(t.Unix())
}

// Tone is how a word looks: good, warn or bad. What is not good in itself is not shown as good; what is not known is "warn".
func (w Word) Tone() string {
	switch w {
	case Genuine, Refurbished, Resold:
		return "good"
	case Stolen, SuspectedClone:
		return "bad"
	case Replacement, SupportEnds, Rekeyed:
		return ""
	case Unknown, Lost, Decommissioned, Recalled, Moved, HeldBack, Replaced, Imported, SupportEnded, Simulated:
		return "warn"
	}
	return "warn"
}

// Title is a word as a headline for people.
func (w Word) Title() string {
	switch w {
	case Unknown:
		return "Unknown"
	case Stolen:
		return "Reported stolen"
	case SuspectedClone:
		return "Perhaps a copy"
	case Lost:
		return "Reported lost"
	case Decommissioned:
		return "Genuine, and taken out of service for good"
	case Recalled:
		return "Genuine, and recalled by its maker"
	case Moved:
		return "Genuine, and handed to its owner's own system"
	case HeldBack:
		return "Genuine, and held back by its maker"
	case Replaced:
		return "Genuine, and replaced by another device"
	case Imported:
		return "Another maker's device, known here"
	case SupportEnded:
		return "Genuine, and no longer supported"
	case Refurbished:
		return "Genuine, refurbished"
	case Resold:
		return "Genuine, with a new owner"
	case Genuine:
		return "Genuine"
	case Replacement:
		return "Took the place of another device"
	case Rekeyed:
		return "Got new keys in the field"
	case SupportEnds:
		return "Supported until"
	case Simulated:
		return "A simulation: software that stands for a device"
	}
	return string(w)
}

// Advice is what a buyer should do about it.
func (w Word) Advice() string {
	switch w {
	case Unknown:
		return "This maker cannot say that it made a device with this ID. Check the ID; ask the seller if it is right."
	case Stolen:
		return "Do not buy it. Its owner or the maker has reported it."
	case SuspectedClone:
		return "Two pieces say that they are this device, and nobody knows yet which one is. Do not buy it; if it is yours, ask the maker."
	case Lost:
		return "Its owner or the maker misses it. If you found it, tell the maker."
	case Decommissioned:
		return "It gets no updates and cannot be taken into use again."
	case Recalled:
		return "Do not use it before you have asked the maker."
	case Moved:
		return "Its maker made it, and cannot say what became of it since: it neither updates nor commands it any more. Ask who sells it where it is run, and ask there."
	case HeldBack:
		return "The maker keeps it from working normally for now. Ask the maker before you buy it."
	case Replaced:
		return "It should not be in use any more: another device has its place."
	case Imported:
		return "Another maker made it and vouches for it. There is no production record here, so that its making cannot be shown."
	case SupportEnded:
		return "It gets no security updates any more."
	case Refurbished:
		return "The maker, or somebody for it, has made it fit again for a new owner."
	case Resold:
		return "It was handed on by its owner before, as it should be."
	case Genuine:
		return "This maker made a device with this ID, and has its production record."
	case Rekeyed:
		return "It had lost the keys from the factory; two people let it have new ones."
	case Simulated:
		return "Software stands for this device: there is no piece of hardware behind it."
	case Replacement, SupportEnds:
		return ""
	}
	return ""
}

// payload writes a judgement as it is signed.
func payload(maker string, r Record, j Judgement, issued time.Time, life time.Duration) wire.Genuine {
	g := wire.Genuine{
		V: 1, Device: r.Device.ID, Maker: maker, Headline: string(j.Headline), Issued: seconds(issued), Expires: seconds(issued.Add(life)),
	}
	for _, s := range j.Says {
		g.Says = append(g.Says, wire.GenuineSaid{Word: string(s.Word), Since: seconds(s.Since), Text: s.Text})
	}
	if j.Headline != Unknown {
		g.Product, g.Made, g.Support = r.Product, seconds(month(r.Device.Made)), seconds(r.Support)
	}
	return g
}
