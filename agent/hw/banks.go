package hw

import (
	"context"
	"io"
)

// Bank is one of the two places, outside of a device's flash, from which its machine may be started.
type Bank int

// The banks.
const (
	BankA Bank = 0
	BankB Bank = 1
)

func (b Bank) String() string { return [...]string{"a", "b"}[b&1] }

// Other is the bank that b is not.
func (b Bank) Other() Bank { return 1 - b }

// Told is what the machine's boot loader was told last.
type Told struct {
	Bank  Bank // where it starts the machine from
	Trial bool // after a few starts that nobody spoke to it about it goes back to the other bank
	Here  bool // the machine has not been started since
}

// Says reports whether it was told this.
func (t Told) Says(b Bank, trial bool) bool { return t.Bank == b && t.Trial == trial }

// Banks are the machine's own: its boot loader starts it from one of them, its installer writes them. Neither is believed: what lies in a bank is known
// by its digest, and which one is right is the boot manager's to say.
type Banks interface {
	// Started is the bank that the machine was started from.
	Started() (Bank, error)
	// Told is what the boot loader was told last; before that, the bank that was started and no trial.
	Told() (Told, error)
	// Tell tells the boot loader. It is durable when it returns; a cut leaves what it was told before, or this.
	Tell(b Bank, trial bool) error
	// Open opens what lies in a bank.
	Open(b Bank) (BankReader, error)
	// Install has the installer make of an image what is to lie in bank b. A cut, or an error, leaves anything there.
	Install(ctx context.Context, b Bank, image io.Reader) error
	// Clear overwrites what lies in a bank, all of it, and reads it back. Of the bank that the machine was started from it is the last that is done on it: what
	// is not in memory by then is not had again. It is safe to repeat.
	Clear(b Bank) error
}

// BankReader reads a bank.
type BankReader interface {
	io.ReaderAt
	io.Closer
}
