package device

import (
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/fault"
)

// State is where a device is in its life.
type State string

// The states, in the order of a life; Lost, Suspected and Moved stand aside. A piece that is ordered is a ticket of its order: there is no device before its production record.
const (
	Provisioned     State = "provisioned"
	Onboarded       State = "onboarded"
	Active          State = "active"
	Quarantined     State = "quarantined"
	Dormant         State = "dormant"
	Maintenance     State = "maintenance"
	Decommissioning State = "decommissioning"
	Decommissioned  State = "decommissioned"
	Disposed        State = "disposed"
	Lost            State = "lost"
	Suspected       State = "suspected-clone"
	Moved           State = "moved" // to another instance, for good: nothing here counts for it any more
)

// States lists every state, in the order of a life.
func States() []State {
	return []State{
		Provisioned, Onboarded, Active, Quarantined, Dormant, Maintenance,
		Decommissioning, Decommissioned, Disposed, Lost, Suspected, Moved,
	}
}

// Event is what happens to a device.
type Event string

// The events. Release also ends a quarantine whose time to live ran out. Who comes back from quarantine or repair is onboarded: good
// evidence makes it active, as it did the first time. A device that was lost, or whose end was called off, has
// to enrol again with its identity from the factory; one that was suspected stays in quarantine until it is released.
const (
	Onboard    Event = "onboard"      // it enrolled over the network
	Activate   Event = "activate"     // good evidence
	Quarantine Event = "quarantine"   // talks to nobody but us
	Release    Event = "release"      // quarantine is over
	Sleep      Event = "sleep"        // dormant
	Wake       Event = "wake"         // no longer dormant
	Maintain   Event = "maintain"     // out of service for repair
	Resume     Event = "resume"       // repaired
	Retire     Event = "retire"       // its end was decided
	Wiped      Event = "wiped"        // the signed receipt of the wipe has come, or its key is revoked for good
	Dispose    Event = "dispose"      // proof of disposal
	Lose       Event = "lose"         // nobody knows where it is
	Find       Event = "find"         // it is back
	Suspect    Event = "suspect"      // two devices may hold one identity
	Clear      Event = "clear"        // the suspicion was unfounded
	Reinstate  Event = "reinstate"    // its end was called off before the wipe
	Reonboard  Event = "re-onboard"   // enrolled again (new owner, new key)
	Remake     Event = "re-provision" // went through the factory again
	Depart     Event = "depart"       // it has left for another instance
)

// Next is the life cycle: the state in which ev leaves a device that is in from. What is not written here does not happen.
func Next(from State, ev Event) (State, error) {
	to, ok := next(from, ev)
	if !ok {
		return "", fault.New(fault.Conflict, "device.transition",
			fmt.Sprintf("a device that is %s cannot take %q", from, ev), "look at its state and what led there with `hallmark device show`")
	}
	return to, nil
}

func next(from State, ev Event) (State, bool) {
	switch ev {
	case Onboard:
		return Onboarded, from == Provisioned
	case Reonboard:
		return Onboarded, InField(from)
	case Remake:
		return Provisioned, from == Decommissioned || from == Maintenance
	case Activate:
		return Active, from == Onboarded
	case Quarantine:
		return Quarantined, from == Onboarded || from == Active || from == Dormant || from == Maintenance
	case Release:
		return Onboarded, from == Quarantined
	case Sleep:
		return Dormant, from == Active
	case Wake:
		return Active, from == Dormant
	case Maintain:
		return Maintenance, from == Onboarded || from == Active || from == Quarantined || from == Dormant
	case Resume:
		return Onboarded, from == Maintenance
	case Retire:
		return Decommissioning, from == Provisioned || InField(from) || from == Lost || from == Suspected
	case Reinstate:
		return Provisioned, from == Decommissioning
	case Wiped:
		return Decommissioned, from == Decommissioning
	case Dispose:
		return Disposed, from == Decommissioned
	case Lose:
		return Lost, from == Provisioned || InField(from) || from == Decommissioning // not Suspected: what is found again is suspected of nothing
	case Find:
		return Provisioned, from == Lost
	case Suspect:
		return Suspected, InField(from)
	case Clear:
		return Quarantined, from == Suspected
	case Depart:
		return Moved, from == Provisioned || InField(from)
	}
	return "", false
}

// InField reports whether a device in s is out there, and ours to command.
func InField(s State) bool {
	return s == Onboarded || s == Active || s == Quarantined || s == Dormant || s == Maintenance
}

// Ended reports whether nothing may be told to a device in s any more.
func Ended(s State) bool { return s == Decommissioned || s == Disposed || s == Moved }

// Retiring reports whether the end of a device in s was decided, or has come.
func Retiring(s State) bool { return s == Decommissioning || Ended(s) }

// Works reports whether a device in s is expected to check in and attest on time.
func Works(s State) bool { return s == Onboarded || s == Active || s == Quarantined }

// Known reports whether s is one of States.
func Known(s State) bool {
	return slices.Contains(States(), s)
}

// Legitimacy is the second axis: is the piece what it says it is, and whose.
type Legitimacy string

// The legitimacies. A device is Unknown until its production record is verified, and Unknown is not good.
const (
	Genuine     Legitimacy = "genuine"
	Recalled    Legitimacy = "recalled"
	Refurbished Legitimacy = "refurbished"
	Resold      Legitimacy = "resold"
	Stolen      Legitimacy = "stolen"
	Unknown     Legitimacy = "unknown"
	Imported    Legitimacy = "imported" // another maker's, or a list's: nobody here knows how it was made
)

// OriginImported is the key origin of a device that was imported: nothing is on record of its keys.
const OriginImported = "imported"

func (l Legitimacy) valid() bool {
	switch l {
	case Genuine, Recalled, Refurbished, Resold, Stolen, Unknown, Imported:
		return true
	}
	return false
}
