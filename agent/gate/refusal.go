package gate

import (
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Code is the stable name of a reason to refuse. It is reported to the server, so it never changes its meaning.
type Code string

// The reasons, in the order in which they are looked for.
const (
	Malformed       Code = "malformed"        // not a delivery, or not one of the messages it should hold
	Ended           Code = "decommissioned"   // the device's life is over
	NotSecured      Code = "life-cycle"       // the device is not in the field yet
	Signature       Code = "signature"        // not by the directive authority of the trust bundle
	Suite           Code = "suite"            // signed in a suite that the trust bundle does not accept
	NotForMe        Code = "not-for-me"       // addressed to another device
	WrongNonce      Code = "nonce"            // not made for the question that was asked
	Replayed        Code = "replayed"         // counter not above the last one accepted
	CounterGap      Code = "counter-gap"      // counter so far ahead that it would be used up
	Expired         Code = "expired"          // directive, command or warrant
	Future          Code = "future"           // issued later than now
	NotLogged       Code = "not-logged"       // no inclusion in the control log, or an entry of another kind
	NotWitnessed    Code = "not-witnessed"    // too few witnesses have cosigned
	StaleCheckpoint Code = "stale-checkpoint" // cosigned too long ago
	ShrunkLog       Code = "shrunk-log"       // the log was larger before
	ForkedLog       Code = "forked-log"       // the log has another root than it had at the same size
	OtherCommand    Code = "other-command"    // the directive names another command
	ActMismatch     Code = "act-mismatch"     // directive, command and warrant do not agree
	OtherProduct    Code = "other-product"
	NotInSet        Code = "not-in-set"   // the command or warrant is for other devices
	NotAlone        Code = "not-alone"    // brought by hand, and the command does not say that it may be
	BadTTL          Code = "time-to-live" // guarded act without a bounded end
	BadConfig       Code = "configuration"
	ReleaseMissing  Code = "release-missing"
	Threshold       Code = "threshold"        // too few offline signatures
	OtherRelease    Code = "other-release"    // not the release the command names
	Hardware        Code = "hardware"         // not for this hardware revision
	ModelOTP        Code = "model-otp"        // programmed once, never again
	OtherModel      Code = "model"            // release of another update model
	Incompatible    Code = "incompatible"     // the release's components do not go together
	Parameters      Code = "parameters"       // what the device was told to use does not fit the release's schema
	SecurityCounter Code = "security-counter" // below the fuses or the floor
	Closed          Code = "closed"           // below the least that is installed any more
	OlderVersion    Code = "older-version"    // not newer than what runs, or not named by its roll-back plan
	SteppingStone   Code = "stepping-stone"   // not to be installed over what runs: another release comes between
	LeftBehind      Code = "left-behind"      // the device was sent back from this release: it does not run it again
	NoWayBack       Code = "no-way-back"      // what runs was not brought by an update that the device remembers
	BackTooLate     Code = "back-too-late"    // what runs was confirmed too long ago
	WarrantMissing  Code = "warrant-missing"  // fatal act without its offline leave
	BadOwner        Code = "owner"            // what should say whom the device is to belong to does not
	Owned           Code = "owned"            // the device has an owner, and neither they nor the maker's warrant keys have let it go
	OtherOwner      Code = "other-owner"      // the warrant ends another ownership than the one there is
	BadHome         Code = "home"             // the trust bundle of where the device is to go is missing, or not the one that was warranted
	BundleMissing   Code = "bundle-missing"
	BundleRefused   Code = "bundle" // may not replace the trust bundle held
	UnknownAct      Code = "unknown-act"
)

// Refusal says why a delivery is not acted on. Nothing has been touched.
type Refusal struct {
	Code  Code
	Text  string       // for people
	Cause *wire.LogRef // the command's entry, once that is proven; nil before
}

// Error gives code and text.
func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Text }

func refuse(code Code, format string, args ...any) *Refusal {
	text := fmt.Sprintf(format, args...)
	if len(text) > 512 {
		text = strings.ToValidUTF8(text[:512], "")
	}
	return &Refusal{Code: code, Text: text}
}
