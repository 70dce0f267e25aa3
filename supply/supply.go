// Package supply knows what releases are made of, and what is known against it.
//
// Stage 0, before build. A release names its bill of materials (package bom); what that says is kept, so that one question has an answer in a moment: where is this component, and
// how many devices run it? Advisories (package osv) are brought here as files, because many makers' instances have no way out to the Internet.
//
// What it guarantees:
//   - A bill of materials that cannot be read, or that does not name each component of the release by its SHA-256, proposes no release.
//   - An ecosystem's advisories are replaced as a whole or not at all; what is half there answers nothing.
//   - "Clear" is said of a component only when the advisories of its ecosystem are here, are not older than MaxAge and could be compared with its version. All else is "unknown", with the reason.
//   - A release of a product that enforces its policy is proposed only when the gate lets it through, and its decision is in what approvers sign; what cannot be found out lets nothing through.
//   - A release of a product that has a policy is published with a summary of what was found, which is signed (package statement) and is a fact; one whose summary cannot be signed is not.
//   - Each release that may be rolled out, or that a device runs, is looked at again when its advisories are others, and what has changed is told and is a fact.
//
// It trusts the bill of materials to be complete, which nobody can see from outside, and whoever may import advisories.
package supply

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/wire"
)

// MaxAge is how old an ecosystem's advisories may be: they appear daily. MaxQuiet is how long an ecosystem in which much happens may be without a new one: a job that brings the same old
// file each day brings nothing.
const (
	MaxAge   = 14 * 24 * time.Hour
	MaxQuiet = 30 * 24 * time.Hour
)

// Database is one ecosystem's advisories.
type Database struct {
	Ecosystem  string    `json:"ecosystem"`
	Advisories int       `json:"advisories"`
	Most       int       `json:"most" doc:"how many there were at most, since it was last said that there are fewer"`
	Digest     string    `json:"digest" doc:"SHA-256 of what was imported, hex"`
	Newest     time.Time `json:"newest" doc:"when the newest of them was last modified"`
	At         time.Time `json:"at" doc:"when it was imported"`
	By         string    `json:"by"`
	Old        bool      `json:"old" doc:"it is too old, and says nothing any more"`
	Why        string    `json:"why,omitempty" doc:"why it is too old"`
	Generation int64     `json:"-"`
}

// Answer is what is known of a component.
type Answer string

// The answers.
const (
	Affected Answer = "affected"
	Clear    Answer = "clear"
	Unknown  Answer = "unknown"
)

// Part is something inside of a release.
type Part struct {
	N int `json:"n" doc:"its place in the bill of materials, from 1 on"`
	bom.Component
	Answer Answer `json:"answer" enum:"affected,clear,unknown"`
	Why    string `json:"why,omitempty" doc:"why it is unknown"`
	Flaws  []Flaw `json:"flaws,omitempty"`
}

// Flaw is an advisory that speaks of a part.
type Flaw struct {
	ID      string   `json:"id"`
	CVEs    []string `json:"cves,omitempty"`
	Aliases []string `json:"aliases,omitempty" doc:"other names that it goes by"`
	Summary string   `json:"summary,omitempty"`
	Score   string   `json:"score,omitempty" doc:"CVSS vector"`
	Rated   float64  `json:"rated,omitempty" doc:"the CVSS score that the vector comes to; absent: none can be told"`
	Fixed   []string `json:"fixed,omitempty" doc:"versions in which it is mended"`
	Sure    bool     `json:"sure" doc:"false: whether this version has it could not be found out"`
}

// Contents is what a bill of materials said, without the components.
type Contents struct {
	Digest     [32]byte      `json:"-"` // of the document
	Document   string        `json:"digest" doc:"SHA-256 of the document, hex"`
	Format     string        `json:"format"`
	Spec       string        `json:"spec"`
	ID         string        `json:"id,omitempty"`
	Root       bom.Component `json:"root"`
	Components int           `json:"components"`
	Unnamed    int           `json:"unnamed" doc:"components without a package URL or a version: nothing can be known of them"`
}

// Use is a release that has a component inside.
type Use struct {
	Release [32]byte `json:"-"`
	Digest  string   `json:"digest" doc:"of the release, hex"`
	ID      string   `json:"id"`
	Product string   `json:"product"`
	Version string   `json:"version"`
	Status  string   `json:"status"`
	Devices int64    `json:"devices" doc:"that said last that they run it"`

	Package osv.Package `json:"package"`
	Has     string      `json:"has" doc:"the component's version"`
	PURL    string      `json:"purl"`
	Answer  Answer      `json:"answer,omitempty" doc:"whether that version is affected, when an advisory was asked for"`
}

// Named is a component under its name in advisories.
type Named struct {
	bom.Component
	Package osv.Package // zero: advisories have no name for it
}

// Unread is a release whose document has not been read: it was proposed by a version that did not, or came back from the log.
type Unread struct {
	Release  [32]byte
	Manifest wire.Release
}

// ErrNotFound and ErrChanged are the store's.
var (
	ErrNotFound = errors.New("not there")
	ErrChanged  = errors.New("it was changed by another")
)

// Store keeps what is known; each write is durable on nil, with its facts.
type Store interface {
	// PutContents stores what a release's document says; the same again changes nothing.
	PutContents(ctx context.Context, release [32]byte, c Contents, parts []Named) error
	// Unread gives releases that name a document of which nothing is stored.
	Unread(ctx context.Context) ([]Unread, error)
	// Contents gives them; ErrNotFound.
	Contents(ctx context.Context, release [32]byte) (Contents, error)
	// Parts gives components of a document behind the one with the number on, at most limit.
	Parts(ctx context.Context, document [32]byte, after, limit int) ([]Part, error)
	// Uses gives the releases that have the package, of any version and of any release of its ecosystem, with their devices. Only what is in the scope is looked at; nil: all.
	Uses(ctx context.Context, base, name string, scope []string) ([]Use, error)

	// Begin opens an import; what it brings counts from Use on.
	Begin(ctx context.Context, ecosystem string, at time.Time) (generation int64, err error)
	// Put stores a few advisories of an import.
	Put(ctx context.Context, generation int64, few []osv.Advisory) error
	// Use has an import take the place of what its ecosystem had.
	Use(ctx context.Context, d Database, facts ...ledger.Fact) error
	// Sweep deletes some of what counts no more, and of imports that were begun before then and given up, and says whether there is more of it.
	Sweep(ctx context.Context, before time.Time) (more bool, err error)
	// Databases gives what counts, by ecosystem.
	Databases(ctx context.Context) ([]Database, error)
	// Against gives the advisories on each of the packages (base ecosystem and name).
	Against(ctx context.Context, packages []osv.Package) ([]osv.Advisory, error)
	// Advisory gives those that go by the name, which may be an alias.
	Advisory(ctx context.Context, name string) ([]osv.Advisory, error)

	// Held gives the releases that have a bill of materials.
	Held(ctx context.Context) ([]Held, error)
	// Assessment gives what was noted of a release; nothing when it never was looked at.
	Assessment(ctx context.Context, release [32]byte) (Assessment, error)
	// Policy gives what is asked of a product's releases; Off when nobody said anything.
	Policy(ctx context.Context, product string) (Policy, error)
	// PutPolicy replaces the one that was read; ErrChanged when it is another by now, ErrNotFound for a product that is not there.
	PutPolicy(ctx context.Context, product string, had, p Policy, facts ...ledger.Fact) error
	// Enforcing gives the products whose policy enforces, by name.
	Enforcing(ctx context.Context) ([]string, error)
	// SupplierNames gives what each supplier of these IDs is called, as far as it is there; one that was ended is called nothing.
	SupplierNames(ctx context.Context, ids []string) (map[string][]string, error)
	// Exceptions gives the documents that were taken in about a product.
	Exceptions(ctx context.Context, product string) ([]Exception, error)
	// PutException keeps one; the same again changes nothing.
	PutException(ctx context.Context, product string, e Exception, facts ...ledger.Fact) error
	// Tell writes facts that change nothing else.
	Tell(ctx context.Context, facts ...ledger.Fact) error
	// PutAssessment notes what is known against a release, and with what it was looked at.
	PutAssessment(ctx context.Context, release [32]byte, stamp string, a Assessment, facts ...ledger.Fact) error
}

// Blobs opens documents by their digest; the bytes have been found to have it.
type Blobs interface {
	Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error)
}

// Releases says of which product a release is; ErrNotFound.
type Releases interface {
	ProductOf(ctx context.Context, release [32]byte) (string, error)
}

// Seal puts what is said of a release into a DSSE envelope, signed with the instance's newest key for that; ErrNotFound when none was made yet.
type Seal func(kind string, payload []byte) (envelope []byte, err error)

// Config is what a Service works with; every field but Now must be set.
type Config struct {
	Store    Store
	Blobs    Blobs
	Releases Releases
	Alarms   Alarms
	Seal     Seal
	Instance string // its name, in what it signs
	Guard    *access.Guard
	Now      func() time.Time // nil: time.Now
}

// Service is the stage.
type Service struct{ cfg Config }

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Blobs == nil || cfg.Releases == nil || cfg.Alarms == nil || cfg.Seal == nil || cfg.Instance == "" || cfg.Guard == nil {
		return nil, errors.New("supply: the store, the blobs, the releases, the alarms, the seal, the instance's name or the guard is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg}, nil
}
