package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/mirror"
	"github.com/hallmark-iot/hallmark/wire"
)

// LogRecovery is what a replay found, and did.
type LogRecovery struct {
	Logs    []LogReplay   `json:"logs"`
	Kinds   []KindReplay  `json:"kinds"` // of the facts that were missing
	Applied bool          `json:"applied"`
	Devices int64         `json:"devices"` // of which this database knows less than they do: each is believed once, and that is a fact
	Todo    []RecoverTodo `json:"todo,omitempty"`
}

// LogReplay is one log of it.
type LogReplay struct {
	Name    string `json:"name"`
	Had     uint64 `json:"had"`     // entries in the database
	Shown   uint64 `json:"shown"`   // entries of the log that was published, and witnessed
	Missing uint64 `json:"missing"` // entries that the database had not
	Signed  uint64 `json:"signed"`  // of these, signed to be witnessed, and not published
	Note    string `json:"note,omitempty"`
}

// KindReplay is the facts of one kind.
type KindReplay struct {
	Kind ledger.Kind `json:"kind"`
	store.Replayed
}

// RecoverTodo is what is left to people.
type RecoverTodo struct {
	Kind     ledger.Kind `json:"kind"`
	Text     string      `json:"text"`
	Subjects []string    `json:"subjects"` // whom it is about, some of them
	More     int         `json:"more,omitempty"`
}

// left says for each kind of fact what a replay does not bring back, and what to do; a kind without a line is done with.
var left = map[ledger.Kind]string{
	ledger.KindAccessChanged:        "removals and roles are applied; secrets are in no fact: who got a token, a passkey or a certificate since gets a new one (`hallmark token create`)",
	ledger.KindProposalMade:         "proposals are forgotten: whoever still wants it asks again",
	ledger.KindProposalApproved:     "approvals of a second person are forgotten: ask again",
	ledger.KindExceptionTaken:       "documents that excused known flaws are forgotten: take them in again (`hallmark supply except`)",
	ledger.KindSupplierChanged:      "suppliers are here again, without what they are called: say it again (`hallmark supply supplier set`); until then gates allow nothing of them",
	ledger.KindPartChanged:          "parts are here again, without their names and numbers: say them again (`hallmark supply part set`)",
	ledger.KindLotCertified:         "that these lots have a certificate is here again; bring it again if blobs/ was restored too (`hallmark supply lot certify`)",
	ledger.KindReleaseProposed:      "releases are here again; upload their artifacts again if blobs/ was restored too",
	ledger.KindCommandIssued:        "commands that were not delivered yet are not delivered any more: issue again what devices did not do",
	ledger.KindRolloutCreated:       "rollouts that were created since are forgotten: create them again",
	ledger.KindRolloutStarted:       "rollouts that were under way are paused: look how far devices are, then resume or abort (`hallmark rollout list`)",
	ledger.KindOrderCreated:         "the secrets of these orders are lost, their records cannot be imported any more: have the station end them, and order again",
	ledger.KindOrderClosed:          "closed orders are closed again; nothing is to be done unless their records are looked for",
	ledger.KindOrderCancelled:       "cancelled orders are cancelled again",
	ledger.KindOrderAbandoned:       "abandoned orders are abandoned again",
	ledger.KindDeviceProvisioned:    "devices are registered again; import the stations' latest record files for scrap and what was refused (`hallmark order import`)",
	ledger.KindDeviceGrouped:        "which group these devices went to is not in the log: they are in none, put them into theirs (`hallmark device group`)",
	ledger.KindDeviceForgotten:      "these devices are forgotten again; backups from before that day still know them: destroy those",
	ledger.KindOrderInspected:       "what was said of first articles is not in the orders: import the stations' record files again (`hallmark order import`)",
	ledger.KindRecordRefused:        "import the station's record file again (`hallmark order import`): its alarms are raised again",
	ledger.KindTelemetryEpochOpened: "sealed data of these devices that came since is lost, and so are its keys",
	ledger.KindRetireOrdered:        "retirements go on by themselves; check that each device is on the list (`hallmark retirement list`)",
	ledger.KindRemedyDecided:        "cases are opened again by the verdicts that are replayed: look at them (`hallmark remedy list`)",
	ledger.KindFindingClosed:        "findings that were closed by hand are raised again by their facts (`hallmark finding list --open`)",
	ledger.KindComplianceStated:     "statements are forgotten: state them again",
	ledger.KindVoucherIssued:        "vouchers that were given out since are good for nothing: ask for others (`hallmark device voucher`)",
	ledger.KindDeviceImported:       "devices of other makers that are known by a name are not on the list again: import it (`hallmark device import`)",
	ledger.KindProductCreated:       "products are here again; so are their trust bundles",
}

const maxNamed = 20

// RecoverLog brings back what a database lacks of the logs that were published: from an export or a mirror of it, verified by the keys
// of trust. Without apply it only looks. restored says that the database is a backup's even if it lacks no fact: devices go on without facts. Nobody else
// may use the database meanwhile.
func RecoverLog(ctx context.Context, l Layout, trust audit.Trust, from func(log string) audit.Fetcher, apply, restored bool) (rec LogRecovery, err error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return rec, err
	}
	db, err := openDatabase(ctx, l, cfg)
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var all []*replay
	for _, name := range []ledger.Log{ledger.Control, ledger.Events} {
		r := &replay{db: db, log: name, counts: map[ledger.Kind]store.Replayed{}, about: map[ledger.Kind]map[string]bool{}}
		i := slices.IndexFunc(trust.Logs, func(t audit.TrustedLog) bool { return t.Name == string(name) })
		if i < 0 || trust.Logs[i].Origin != cfg.origin(name) {
			return rec, fmt.Errorf("the trust file names no key of the log %s: it is another instance's", cfg.origin(name))
		}
		if err := r.look(ctx, trust.Policy(i), from(string(name))); err != nil {
			return rec, fmt.Errorf("%s log: %w", name, err)
		}
		all = append(all, r)
	}
	// Both are good: only now something is written, what devices verify first. What is known of devices is a backup's before anything is replayed, so that
	// a recovery that breaks off has said it.
	for _, r := range all {
		restored = restored || r.tree.Size > r.had.Size
	}
	if apply && restored {
		if rec.Devices, err = db.Restored(ctx, time.Now()); err != nil {
			return rec, err
		}
	}
	for _, r := range all {
		if err := r.walk(ctx, apply); err != nil {
			return rec, fmt.Errorf("%s log: %w", r.log, err)
		}
		rec.add(r)
	}
	rec.Applied = apply
	return rec, nil
}

// replay is one log's.
type replay struct {
	db     *store.DB
	log    ledger.Log
	shown  *mirror.Tree // published
	tree   *mirror.Tree // published, or signed and larger
	had    ledger.State
	note   string
	counts map[ledger.Kind]store.Replayed
	about  map[ledger.Kind]map[string]bool // subjects
}

// look verifies the source, twice and by different code, and that it continues what the database has.
func (r *replay) look(ctx context.Context, p audit.Policy, fetch audit.Fetcher) error {
	if _, err := audit.Verify(ctx, p, fetch); err != nil {
		return fmt.Errorf("the export to replay from does NOT verify: %w", errors.Join(err, damaged(ctx, p, fetch)))
	}
	var err error
	if r.shown, err = mirror.Open(ctx, p, fetch); err != nil {
		return err
	}
	r.tree = r.shown
	if err := r.signed(ctx, p, fetch); err != nil {
		return err
	}
	if r.had, err = r.db.State(ctx, r.log); err != nil {
		return err
	}
	common := min(r.had.Size, r.tree.Size)
	same, err := r.same(ctx, common)
	if err != nil || same {
		return err
	}
	from := uint64(sort.Search(int(common), func(n int) bool {
		same, e := r.same(ctx, uint64(n)+1)
		err = errors.Join(err, e)
		return !same
	}))
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: from entry %d on the database has other entries than the log that was published (%d of them); nothing was changed. "+
		"Restore a backup of the database from before that entry, and replay into that", ledger.ErrForked, from, r.had.Size-from)
}

// damaged names the first file that is not what the checkpoint says.
func damaged(ctx context.Context, p audit.Policy, fetch audit.Fetcher) error {
	t, err := mirror.Open(ctx, p, fetch)
	if err != nil {
		return err
	}
	for n := range t.Bundles() {
		if _, _, err := t.Bundle(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// signed takes the larger tree that the log signed last, if its files are there: a witness may remember it.
func (r *replay) signed(ctx context.Context, p audit.Policy, fetch audit.Fetcher) error {
	t, err := mirror.OpenSigned(ctx, p, fetch, ledger.SignedFile)
	if err != nil {
		r.note = "what was signed last, and not published, is not there: " + err.Error()
		return nil //nolint:nilerr // mirrors and web servers have none; it is told
	}
	if t.Size <= r.shown.Size {
		return nil
	}
	root, err := t.RootAt(ctx, r.shown.Size)
	if err != nil {
		return err
	}
	if root != r.shown.Root {
		return fmt.Errorf("%w: the log signed another tree than the one it published", ledger.ErrForked)
	}
	r.tree = t
	return nil
}

func (r *replay) same(ctx context.Context, size uint64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	ours, err := ledger.NewReader(r.db).RootAt(ctx, r.log, size)
	if err != nil {
		return false, err
	}
	theirs, err := r.tree.RootAt(ctx, size)
	return ours == theirs, err
}

// walk goes through the entries that are missing, bundle by bundle, each verified before it is believed, and puts them in.
func (r *replay) walk(ctx context.Context, apply bool) error {
	for at := r.had.Size; at < r.tree.Size; {
		entries, _, err := r.tree.Bundle(ctx, at/256)
		if err != nil {
			return err
		}
		entries = entries[at%256:]
		for _, e := range entries {
			if err := r.count(ctx, e, apply); err != nil {
				return err
			}
		}
		if apply {
			if err := r.db.Replay(ctx, r.log, at, entries, r.counts); err != nil {
				return err
			}
			failpoint.Hit("recover.bundle")
		}
		at += uint64(len(entries))
	}
	if !apply {
		return nil
	}
	return r.publish(ctx)
}

// count notes whom a fact is about; when nothing is applied, also what would become of it.
func (r *replay) count(ctx context.Context, entry []byte, apply bool) error {
	w, err := wire.DecodeFact(entry)
	if err != nil {
		return err
	}
	kind := ledger.Kind(w.Kind)
	if r.about[kind] == nil {
		r.about[kind] = map[string]bool{}
	}
	r.about[kind][w.Subject] = true
	if apply {
		return nil
	}
	c := r.counts[kind]
	if _, _, err := r.db.Locate(ctx, [16]byte(w.UID)); err == nil {
		c.Kept++
	} else if errors.Is(err, ledger.ErrNotFound) {
		c.Facts++
	} else {
		return err
	}
	r.counts[kind] = c
	return nil
}

// publish makes the checkpoints that were shown the database's own.
func (r *replay) publish(ctx context.Context) error {
	state, err := r.db.State(ctx, r.log)
	if err != nil {
		return err
	}
	if state.Size < r.tree.Size {
		return fmt.Errorf("%d entries after the replay, want %d", state.Size, r.tree.Size)
	}
	prev, err := r.db.Published(ctx, r.log)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	for _, t := range []*mirror.Tree{r.shown, r.tree} {
		if err := r.db.PutCheckpoint(ctx, r.log, ledger.State{Size: t.Size, Root: t.Root}, t.Note); err != nil {
			return err
		}
	}
	if prev.Size >= r.shown.Size {
		return nil
	}
	return r.db.Publish(ctx, r.log, ledger.State{Size: r.shown.Size, Root: r.shown.Root}, r.shown.Note)
}

func (rec *LogRecovery) add(r *replay) {
	x := LogReplay{Name: string(r.log), Had: r.had.Size, Shown: r.shown.Size, Note: r.note}
	if r.tree.Size > r.had.Size {
		x.Missing = r.tree.Size - r.had.Size
		x.Signed = r.tree.Size - max(r.shown.Size, r.had.Size)
	}
	rec.Logs = append(rec.Logs, x)
	for kind, c := range r.counts {
		rec.Kinds = append(rec.Kinds, KindReplay{kind, c})
		if text := left[kind]; text != "" && c.Facts > 0 {
			about := slices.Sorted(maps.Keys(r.about[kind]))
			rec.Todo = append(rec.Todo, RecoverTodo{Kind: kind, Text: text, Subjects: about[:min(len(about), maxNamed)], More: max(0, len(about)-maxNamed)})
		}
	}
	slices.SortFunc(rec.Kinds, func(a, b KindReplay) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
	slices.SortFunc(rec.Todo, func(a, b RecoverTodo) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
}

// MendLogs writes exported files again that are lost or were changed, from the database; how many by log. The instance must not run.
func MendLogs(ctx context.Context, l Layout, trust audit.Trust) (written map[string]int, err error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, l, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	written = map[string]int{}
	for _, t := range trust.Logs {
		exports, err := cfg.exports(l, ledger.Log(t.Name))
		if err != nil {
			return nil, err
		}
		p := ledger.NewPublisher(ledger.PublisherConfig{
			Store: db, Log: ledger.Log(t.Name), Origin: t.Origin, Key: publicOnly{t.Key}, Export: exports[0], Also: exports[1:], Logger: slog.New(slog.DiscardHandler),
		})
		n, err := p.Mend(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s log: %w", t.Name, err)
		}
		written[t.Name] = n
	}
	return written, nil
}

// publicOnly is a log's key without what signs.
type publicOnly struct{ key ed25519.PublicKey }

func (publicOnly) Sign([]byte) ([]byte, error) { return nil, errors.New("nothing is signed here") }
func (k publicOnly) Public() ed25519.PublicKey { return k.key }
