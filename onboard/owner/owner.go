// Package owner says whom a device belongs to: claim, transfer, and the marks stolen and recalled.
//
// Stage 3, field. A maker's devices leave it without an owner. An owner claims one with the code that came with it; from then on its people
// see and command it, and nobody else's but the maker's do. When it is sold on, or goes back to be refurbished, everything of the old
// owner's time ends: their sight of it at once, the keys of their data, the certificate, and on the device itself settings and key. What
// stays is the lineage: from when to when it belonged to somebody, without saying to whom.
//
// What it guarantees: a code is used once, and is kept as a hash; a transfer's first step shuts the old owner out, in one transaction,
// whether or not the device can be reached; every further step is repeated after a crash until it is done, and none twice; the next owner
// comes in only after the device itself has said that it let go. A device whose owner has a key lets go by a warrant of that key, or of
// the product's warrant threshold, and by nothing that this server could sign. An owner without a key is bound on the server only.
//
// It trusts the device stage to deliver and to say what devices answered, and nobody about codes.
package owner

import (
	"context"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

// Owner is whom devices belong to. The ID is made up by chance, because facts hold it; the name is private.
type Owner struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero" doc:"since when it may have no devices any more"`
	Devices int       `json:"devices" doc:"that belong to it now"`
	Rev     int64     `json:"-"` // rises with each change
}

// Period is a time in which a device belonged to one owner.
type Period struct {
	Device  string    `json:"device"`
	Number  int       `json:"period" doc:"counted from 1"`
	Owner   string    `json:"owner,omitempty" doc:"ID; for who may know it"`
	Digest  []byte    `json:"owner_digest" doc:"SHA-256 over salt and owner: what the ledger and the device know of the owner"`
	Salt    []byte    `json:"salt,omitempty" doc:"proves who it was; for who may know it"`
	Key     []byte    `json:"key,omitempty" doc:"the owner's public key, SubjectPublicKeyInfo; without one the device itself defends nobody"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until,omitzero"`
	How     string    `json:"how" doc:"claim or transfer: with which code it began"`
	End     Kind      `json:"end,omitempty" doc:"resale or refurbish: how it ended"`
	By      string    `json:"by,omitempty"`
	Command string    `json:"command,omitempty" doc:"of the act adopt"`
	Holds   bool      `json:"holds" doc:"the device has said that it defends this owner"`
	Refused string    `json:"refused,omitempty" doc:"why it last said no: a code of the device's"`
	Tries   int       `json:"tries,omitempty"`
	Tried   time.Time `json:"tried,omitzero"`
	Rev     int64     `json:"-"`
}

// current reports whether the device belongs to that owner now.
func (p Period) current() bool { return p.Number > 0 && p.Until.IsZero() }

// Kind is how a device leaves its owner.
type Kind string

// A device is sold on, to an owner who is given a code for it, or goes back to the maker.
const (
	Resale    Kind = "resale"
	Refurbish Kind = "refurbish"
	Rehome    Kind = "rehome" // to an instance of its owner's own: here its life ends
)

// legitimacy is what a device is then.
func (k Kind) legitimacy() device.Legitimacy {
	if k == Refurbish {
		return device.Refurbished
	}
	return device.Resold
}

// Transfer is the end of a device's time with its owner, until nothing is left of it. The owner is shut out before the first step.
type Transfer struct {
	Device   string    `json:"device"`
	Product  string    `json:"product"`
	Period   int       `json:"period" doc:"that ends; 0: it belonged to nobody"`
	Kind     Kind      `json:"kind"`
	Reason   string    `json:"reason"`
	By       string    `json:"by"`
	Begun    time.Time `json:"begun"`
	Warrant  *[16]byte `json:"warrant,omitempty"` // UID of its fact
	Revoked  bool      `json:"revoked" doc:"the operational certificates of the owner's time"`
	Command  string    `json:"command,omitempty" doc:"by which the device is told to let go"`
	Tries    int       `json:"tries" doc:"how often it was told"`
	Tried    time.Time `json:"tried,omitzero"`
	Refused  string    `json:"refused,omitempty" doc:"why it last said no: a code of the device's"`
	LetGo    bool      `json:"let_go" doc:"the device has said that it did"`
	Server   string    `json:"server,omitempty" doc:"rehome: where the device is to call"`
	Offer    []byte    `json:"offer,omitempty"` // rehome: of the instance that it goes to, as long as it has not gone
	From     string    `json:"from,omitempty"`  // rehome: the group that it was in, for it to come back to
	GivenUp  time.Time `json:"given_up,omitzero" doc:"since when it is not handed over after all"`
	Done     time.Time `json:"done,omitzero" doc:"nothing is left to do; the next owner can claim it"`
	BegunUID [16]byte  `json:"-"` // of the fact
	Rev      int64     `json:"-"`
}

// Errors of the stores.
var (
	ErrNotFound = errors.New("not found")
	ErrChanged  = errors.New("changed meanwhile")
	ErrForeign  = errors.New("another's")
)

// Store keeps owners and whom devices belong to. Writes are durable, with their facts, when they return nil.
type Store interface {
	// PutOwner stores a new one.
	PutOwner(ctx context.Context, o Owner, facts ...ledger.Fact) error
	// Owner finds one; ErrNotFound.
	Owner(ctx context.Context, id string) (Owner, error)
	// Owners lists them by ID, after (exclusive), at most limit.
	Owners(ctx context.Context, after string, limit int) ([]Owner, error)
	// EndOwner ends one that has no devices, with what its members hold; ErrChanged when it has, or its stored Rev is not o.Rev.
	EndOwner(ctx context.Context, o Owner, facts ...ledger.Fact) error
	// Lineage gives the periods of a device, oldest first.
	Lineage(ctx context.Context, device string) ([]Period, error)
	// Unheld gives periods that have a key, and a device that has not said that it defends it.
	Unheld(ctx context.Context) ([]Period, error)
	// SavePeriod replaces one if its stored Rev is p.Rev, and raises Rev; else ErrChanged.
	SavePeriod(ctx context.Context, p Period) error
}

// Codes keeps claim codes: the hash of one for each device, at most.
type Codes interface {
	// Unclaimed lists devices of an order, or those of the product in ids, that belong to nobody, whose life has not ended and which are
	// in no transfer: by ID, after (exclusive), at most limit.
	Unclaimed(ctx context.Context, product, order string, ids []string, after string, limit int) ([]string, error)
	// PutCodes replaces the hashes; ErrChanged, and none, when a device belongs to somebody by now, or is in a transfer.
	PutCodes(ctx context.Context, hashes map[string][32]byte, at time.Time, facts ...ledger.Fact) error
	// Code gives the hash, and whether it was made by a transfer; ErrNotFound.
	Code(ctx context.Context, device string) (hash [32]byte, transfer bool, err error)
	// Claim takes the code with that hash and begins p, in which the device is in group; ErrChanged when the code is not there any more,
	// the device is in another group than from, or in a transfer, or belongs to somebody.
	Claim(ctx context.Context, p Period, hash [32]byte, product, from, group string, facts ...ledger.Fact) error
}

// Transfers keeps transfers.
type Transfers interface {
	// Begin begins them, all or none: see Leaving. ErrChanged when a device is not any more as it was read.
	Begin(ctx context.Context, leaving []Leaving, facts ...ledger.Fact) error
	// Purge writes over what is left of destroyed data in the database's files. It takes its time.
	Purge(ctx context.Context) error
	// Transfer gives a device's last one; ErrNotFound.
	Transfer(ctx context.Context, device string) (Transfer, error)
	// OpenTransfers gives those that are not done, by device, after (exclusive), at most limit.
	OpenTransfers(ctx context.Context, after string, limit int) ([]Transfer, error)
	// SaveTransfer replaces one if its stored Rev is t.Rev, and raises Rev; else ErrChanged.
	SaveTransfer(ctx context.Context, t Transfer) error
	// Finish stores the end of one, and lets data of epochs above epoch in again.
	Finish(ctx context.Context, t Transfer, epoch uint64, facts ...ledger.Fact) error
	// Answer gives the newest command of the act to the device since then, and what became of it; ErrNotFound.
	Answer(ctx context.Context, device string, act wire.Act, since time.Time) (device.CommandDevice, error)
	// Weight says what a transfer of the device would end.
	Weight(ctx context.Context, device string) (Weight, error)
}

// Returns takes handovers back.
type Returns interface {
	// GiveUp stores the end of a handover that was given up: the commands of the act rehome that the device was not given are withdrawn, its
	// time with its owner goes on in the group that it was in, and its data is taken in again. ErrChanged when the device was given one, and
	// has not refused it, or when the transfer's stored Rev is not t.Rev.
	GiveUp(ctx context.Context, t Transfer, facts ...ledger.Fact) error
}

// Leaving is a device that leaves its owner, in one transaction: the period ends, the device is in no group, has another legitimacy (unless
// it is recalled, which it stays) and another code or none; commands that its owner may have given are withdrawn from it; what is stored
// of its sealed data is destroyed with the keys, and nothing is taken until the transfer is done; what it was configured with is forgotten.
type Leaving struct {
	Transfer   Transfer
	From       string // group
	Legitimacy device.Legitimacy
	Base       device.Legitimacy // what it is once its recalls are lifted
	Code       *[32]byte         // hash
	Stays      bool              // what it is called stays: it is not handed on here
}

// Weight is what a transfer ends.
type Weight struct {
	Rollout  string `json:"rollout,omitempty" doc:"of the owner's own, in which the device is; it has to end before"`
	Commands int    `json:"commands" doc:"that the device has not answered, and that are withdrawn"`
	Epochs   int    `json:"epochs" doc:"stretches of sealed data whose keys are destroyed"`
	Records  int    `json:"records" doc:"samples in them; who wants to keep them reads them before"`
}

// Devices is the registry and the authority; *device.Service is one.
type Devices interface {
	Get(ctx context.Context, caller access.Caller, id string) (device.Device, error)
	Move(ctx context.Context, caller access.Caller, id string, ev device.Event, cause *ledger.Ref, reason string) (device.Device, error)
	Command(ctx context.Context, caller access.Caller, in device.Instruction) (string, error)
	CurrentBundle(ctx context.Context, product string) (device.Bundle, error)
	SubmitWarrant(ctx context.Context, caller access.Caller, envelope []byte, devices []string) (device.Warrant, error)
	OwnerWarrant(ctx context.Context, caller access.Caller, envelope []byte, device string, key []byte) (device.Warrant, error)
	HoldsWarrant(ctx context.Context, envelope []byte, devices []string) error
}

// Warrants finds a warrant that was submitted; device.ErrNotFound.
type Warrants interface {
	KnownWarrant(ctx context.Context, id string) (device.Warrant, []string, error)
}

// Certificates takes operational certificates; *pki.Service does.
type Certificates interface {
	Certificates(ctx context.Context, caller access.Caller, device, place, after string, limit int) ([]pki.Issued, error)
	Revoke(ctx context.Context, caller access.Caller, key string, reason int) error
}

// Ledger finds facts; *ledger.Reader does.
type Ledger interface {
	Locate(ctx context.Context, uid [16]byte) (ledger.Ref, bool, error)
}
