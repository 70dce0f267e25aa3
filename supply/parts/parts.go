// Package parts knows what devices are built of: who supplies it, and in which lots it came.
//
// Stage 0, before build. A maker writes down its suppliers, the parts that they supply (hardware, and software that is bought), and each lot of a part as it is received, with
// its certificate of conformity. The orders of the factory name the lots that they are made of. Then one question has an answer in a moment: which devices have a part of that lot?
//
// What it guarantees:
//   - A lot's certificate is kept under its SHA-256, which is a fact, and is given out with those bytes or not at all.
//   - A device of an order that names a lot may have a part of it, and is found by it, whether there are ten of them or a million.
//   - No order is created with a lot that was recalled. One that turns out to have one can say so, and then it is told.
//   - What would hide something takes two people: to say that an order has nothing of a lot after all, that a recalled lot is good, or that a supplier that a gate allows has another name.
//
// It trusts the factory to name what it builds in: no device can tell. Who is precise makes an order for each lot.
package parts

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Supplier is who supplies parts.
type Supplier struct {
	ID    string    `json:"id"`
	Name  string    `json:"name,omitempty"`
	Names []string  `json:"names,omitempty" doc:"what bills of materials call it: a policy of the supply gate that names it by its ID allows these"`
	Site  string    `json:"site,omitempty" doc:"where more is said of it"`
	By    string    `json:"by"`
	At    time.Time `json:"at" doc:"when it was last changed"`
	Ended time.Time `json:"ended,omitzero" doc:"since when nothing is taken of it any more"`

	Rev int64 `json:"-"`
}

// Kind is what sort of part it is.
type Kind string

// The kinds.
const (
	Hardware Kind = "hardware"
	Software Kind = "software"
)

// Part is something that devices are built of.
type Part struct {
	ID       string    `json:"id"`
	Supplier string    `json:"supplier"`
	Kind     Kind      `json:"kind" enum:"hardware,software"`
	Name     string    `json:"name,omitempty"`
	Number   string    `json:"number,omitempty" doc:"the supplier's part number, or the version of software"`
	PURL     string    `json:"purl,omitempty" doc:"package URL of software: bills of materials and advisories name it so"`
	By       string    `json:"by"`
	At       time.Time `json:"at" doc:"when it was last changed"`

	Rev int64 `json:"-"`
}

// Lot is what came of a part at once.
type Lot struct {
	ID       string    `json:"id"`
	Part     string    `json:"part"`
	Number   string    `json:"number" doc:"the supplier's"`
	Received time.Time `json:"received"`

	Certificate string `json:"certificate,omitempty" doc:"SHA-256 of its certificate of conformity, hex; none: it came without one, or it is not here yet"`
	Size        int64  `json:"certificate_size,omitempty" doc:"bytes of it"`

	By       string    `json:"by"`
	At       time.Time `json:"at" doc:"when it was last changed"`
	Recalled time.Time `json:"recalled,omitzero" doc:"since when it is known to be bad"`
	Reason   string    `json:"reason,omitempty" doc:"why it was recalled, or cleared"`

	Rev int64 `json:"-"`
}

// Naming is the data of the facts that an order is made of lots, or is not after all.
type Naming struct {
	Order  string   `json:"order"`
	Lots   []string `json:"lots"`
	Reason string   `json:"reason,omitempty"`
}

// Built is a device that may have a part of a lot.
type Built struct {
	Device  string `json:"device"`
	Product string `json:"product"`
	Order   string `json:"order"`
	State   string `json:"state"`
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not there")
	ErrExists   = errors.New("there already")
	ErrChanged  = errors.New("it was changed by another")
	ErrFull     = errors.New("there are as many as may be")
)

// Catalogue keeps suppliers, parts and lots; each write is durable on nil, with its facts. What has no revision yet is new: ErrExists when its ID is taken; what has one takes the
// place of that revision: ErrChanged when it is another by now. What is asked for and not there is ErrNotFound.
type Catalogue interface {
	PutSupplier(ctx context.Context, s Supplier, facts ...ledger.Fact) error
	Supplier(ctx context.Context, id string) (Supplier, error)
	// Suppliers gives them by ID, from behind one on.
	Suppliers(ctx context.Context, after string, limit int) ([]Supplier, error)
	// Allowing gives the products whose policy names the supplier, and looks at releases: one that warns today is enforced tomorrow.
	Allowing(ctx context.Context, supplier string) ([]string, error)
	PutPart(ctx context.Context, p Part, facts ...ledger.Fact) error
	Part(ctx context.Context, id string) (Part, error)
	// Parts gives a supplier's by ID, all with an empty one.
	Parts(ctx context.Context, supplier, after string, limit int) ([]Part, error)
	// PutLot is ErrExists also for a number that the part has a lot of.
	PutLot(ctx context.Context, l Lot, facts ...ledger.Fact) error
	Lot(ctx context.Context, id string) (Lot, error)
	// Lots gives a part's by ID, all with an empty one.
	Lots(ctx context.Context, part, after string, limit int) ([]Lot, error)
}

// Orders keeps which lots the orders of the factory are made of.
type Orders interface {
	// OrderPlace gives an order's product, and DevicePlace where a device is, as scopes name it; ErrNotFound.
	OrderPlace(ctx context.Context, order string) (string, error)
	DevicePlace(ctx context.Context, device string) (string, error)
	// OrderLots gives the lots that an order names, by ID; DeviceLots those of a device's order.
	OrderLots(ctx context.Context, order string) ([]Lot, error)
	DeviceLots(ctx context.Context, device string) ([]Lot, error)
	// Name puts lots to an order, and Unname takes one away; what is so already changes nothing, and then no fact is written. ErrFull when it would name more than MaxLots.
	Name(ctx context.Context, order string, lots []string, fact ledger.Fact) error
	Unname(ctx context.Context, order, lot string, fact ledger.Fact) error
	// Devices gives those of the orders that name a lot, ordered by order and device, from behind the one with such a key on. Only what is in the scope; nil: all.
	Devices(ctx context.Context, lot string, scope []string, after string, limit int) ([]Built, error)
	// Count counts those whose life has not ended.
	Count(ctx context.Context, lot string, scope []string) (int64, error)
}

// Blobs keeps certificates.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (digest [32]byte, size int64, err error)
	Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error)
}
