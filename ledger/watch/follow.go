package watch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/ledger/mirror"
	"github.com/hallmark-iot/hallmark/wire"
)

// State is how far a follower is, and what it told that is not over.
type State struct {
	Logs map[ledger.Log]Followed `json:"logs"`
	Open map[string]Alert        `json:"open"` // by rule and log
}

// Followed is one log.
type Followed struct {
	Note string `json:"note"` // the newest checkpoint that was verified to continue those before it
	Told uint64 `json:"told"` // how many entries were judged, and everything about them told
}

// Sink keeps what must not be lost.
type Sink interface {
	// Tell passes a notice on. It may come again, with the same ID. What failed is tried again before anything else is judged.
	Tell(ctx context.Context, n Notice) error
	// Save keeps the state; durable on nil.
	Save(ctx context.Context, s State) error
	// Remember keeps the memory; it may be lost, then the logs are read anew.
	Remember(ctx context.Context, m *Memory) error
}

// Follower reads the logs as they grow. It is for one goroutine.
type Follower struct {
	Trust audit.Trust
	Fetch func(log string) audit.Fetcher
	Judge *Judge
	Stale time.Duration // a log without a new witnessed checkpoint for so long is told; 0: never
	Sink  Sink
	State State
	// Now says to judge everything that is there. Otherwise an event waits until the control log was witnessed after it, so that what it
	// rests on is known.
	Now bool

	pending    []Notice
	begun      time.Time
	views      []view                   // of this round
	withheld   map[ledger.Log]time.Time // since when entries under a new checkpoint cannot be had
	commands   map[string]string        // digests of commands, by origin and index
	roots      map[string]mirror.Hash   // of the trees that devices were shown, by origin and size; what continues has the same
	behind     map[ledger.Log]time.Time // since when an older checkpoint is shown
	remembered uint64                   // entries in the memory that was kept last
}

// Expect gives a checkpoint that a log must continue, when none was seen yet.
func (f *Follower) Expect(log ledger.Log, note []byte) {
	f.prepare()
	if f.State.Logs[log].Note == "" {
		f.State.Logs[log] = Followed{Note: string(note)}
	}
}

func (f *Follower) prepare() {
	if f.State.Logs == nil {
		f.State.Logs = map[ledger.Log]Followed{}
	}
	if f.State.Open == nil {
		f.State.Open = map[string]Alert{}
	}
}

// Round is what one look at the logs found.
type Round struct {
	Notices int               // told
	Size    map[string]uint64 // of each log that was read to its end
	Failed  []error           // what could not be read or verified
}

// settle is how long after a fact happened a checkpoint may be without it: sequencing, and ten seconds for the witnesses.
const settle = 15 * time.Second

// view is a log as it shows itself now.
type view struct {
	audit.TrustedLog
	policy audit.Policy
	tree   *mirror.Tree // nil: not to be judged
	seen   time.Time
}

// fetchError is that of a file that could not be had, as opposed to one that is wrong.
type fetchError struct{ error }

func (e fetchError) Unwrap() error { return e.error }

// Round looks at both logs, and judges what is new. An error says that something could not be kept: nothing is lost then, and the next
// Round goes on from there.
func (f *Follower) Round(ctx context.Context, now time.Time) (Round, error) {
	f.prepare()
	if f.begun.IsZero() {
		f.begun = now
	}
	r := Round{Size: map[string]uint64{}}
	if err := f.flush(ctx, &r); err != nil {
		return r, err
	}
	views, err := f.look(ctx, now, &r)
	if err != nil {
		return r, err
	}
	f.views = views
	var until time.Time
	for _, v := range views {
		control := v.Name == string(ledger.Control)
		if v.tree == nil && control {
			return r, nil // what events rest on is not known
		}
		if v.tree == nil {
			continue
		}
		whole, err := f.judge(ctx, v, until, now, &r)
		if err != nil || control && !whole {
			return r, err
		}
		if control {
			until = v.seen.Add(-settle)
		}
	}
	return r, f.remember(ctx, false)
}

// look opens both logs. The control log is the last that is read and the first that is judged: what events rest on is in it by then.
func (f *Follower) look(ctx context.Context, now time.Time, r *Round) ([]view, error) {
	var views []view
	for i, l := range f.Trust.Logs {
		views = append(views, view{TrustedLog: l, policy: f.Trust.Policy(i)})
	}
	slices.SortStableFunc(views, func(a, b view) int { return rank(a.Name) - rank(b.Name) })
	for i := len(views) - 1; i >= 0; i-- {
		v := &views[i]
		if err := f.open(ctx, v, now, r); err != nil {
			return nil, err
		}
		if err := f.stale(ctx, v, now, r); err != nil {
			return nil, err
		}
	}
	return views, nil
}

func rank(log string) int {
	if log == string(ledger.Control) {
		return 0
	}
	return 1
}

// open verifies a log's checkpoint, and that it continues the one that was seen last.
func (f *Follower) open(ctx context.Context, v *view, now time.Time, r *Round) error {
	log := ledger.Log(v.Name)
	fetch := f.Fetch(v.Name)
	tree, err := mirror.Open(ctx, v.policy, func(ctx context.Context, path string) ([]byte, error) {
		data, err := fetch(ctx, path)
		if err != nil {
			err = fetchError{err}
		}
		return data, err
	})
	if err != nil {
		return f.unreadable(ctx, *v, now, err, r)
	}
	head, err := audit.Checkpoint(v.policy, tree.Note)
	if err != nil {
		return f.unreadable(ctx, *v, now, err, r)
	}
	at := f.State.Logs[log]
	if at.Note != "" {
		rule, what, err := continues(ctx, v.policy, []byte(at.Note), tree)
		if err != nil {
			return f.unreadable(ctx, *v, now, err, r)
		}
		for _, other := range []string{ruleForked, ruleSmaller} {
			if other == rule {
				continue
			}
			if err := f.over(ctx, other, log, now, "the log is again one that continues what it was", r); err != nil {
				return err
			}
		}
		if rule == ruleSmaller && f.lags(log, v.policy, head, []byte(at.Note), now) {
			return nil
		}
		if rule != "" {
			r.Failed = append(r.Failed, fmt.Errorf("log %s: %s", v.Name, what))
			return f.begin(ctx, rule, log, now, what, at.Note, string(tree.Note), r)
		}
	}
	delete(f.behind, log)
	v.tree, v.seen = tree, head.Seen(v.policy.Quorum)
	if at.Note != string(tree.Note) {
		at.Note = string(tree.Note)
		f.State.Logs[log] = at
		return f.Sink.Save(ctx, f.State)
	}
	return nil
}

// lag is how long an older checkpoint may be shown: a cache, or another of several servers, may be behind.
const lag = time.Minute

// lags says whether a smaller log may be one that is only behind: it was witnessed before the one that was kept, and was not shown for long.
func (f *Follower) lags(log ledger.Log, p audit.Policy, shown audit.Head, kept []byte, now time.Time) bool {
	old, err := audit.Checkpoint(p, kept)
	if err != nil || f.Now || shown.Seen(p.Quorum).After(old.Seen(p.Quorum)) {
		return false
	}
	since, known := f.behind[log]
	if !known {
		if f.behind == nil {
			f.behind = map[ledger.Log]time.Time{}
		}
		f.behind[log], since = now, now
	}
	return now.Sub(since) < lag
}

// continues says by which rule a tree does not continue the one of an earlier checkpoint; none when it does.
func continues(ctx context.Context, p audit.Policy, kept []byte, tree *mirror.Tree) (rule, what string, err error) {
	old, err := audit.Signed(p, kept)
	if err != nil {
		return "", "", fmt.Errorf("the checkpoint that was kept: %w", err)
	}
	if tree.Size < old.Size {
		return ruleSmaller, fmt.Sprintf("the log had %d entries, and shows %d", old.Size, tree.Size), nil
	}
	root, err := tree.RootAt(ctx, old.Size)
	if err != nil || root == old.Root {
		return "", "", err
	}
	return ruleForked, fmt.Sprintf("the log of %d entries does not continue what it was with %d, and both are signed and witnessed", tree.Size, old.Size), nil
}

// unreadable tells of files that are wrong. Those that could not be had are told by the log's going stale.
func (f *Follower) unreadable(ctx context.Context, v view, now time.Time, why error, r *Round) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.Failed = append(r.Failed, fmt.Errorf("log %s: %w", v.Name, why))
	if _, lost := errors.AsType[fetchError](why); lost {
		return nil
	}
	log := ledger.Log(v.Name)
	return f.begin(ctx, RuleUnverified, log, now, why.Error(), f.State.Logs[log].Note, "", r)
}

// missing is unreadable for what is under a checkpoint that was verified. The log does not go stale by it: whoever serves it goes on
// showing new checkpoints, and keeps back what is under them.
func (f *Follower) missing(ctx context.Context, v view, now time.Time, why error, r *Round) error {
	log := ledger.Log(v.Name)
	if _, lost := errors.AsType[fetchError](why); lost && ctx.Err() == nil {
		since, known := f.withheld[log]
		if !known {
			if f.withheld == nil {
				f.withheld = map[ledger.Log]time.Time{}
			}
			f.withheld[log], since = now, now
		}
		if f.Stale > 0 && now.Sub(since) > f.Stale {
			what := fmt.Sprintf("entries from %d on are under a witnessed checkpoint of size %d, and could not be had since %s: %v",
				f.Judge.Memory().Judged[log], v.tree.Size, stamp(since), why)
			if err := f.begin(ctx, ruleWithheld, log, now, what, f.State.Logs[log].Note, "", r); err != nil {
				return err
			}
		}
	}
	return f.unreadable(ctx, v, now, why, r)
}

// stale compares the time when witnesses saw the newest checkpoint with the time now.
func (f *Follower) stale(ctx context.Context, v *view, now time.Time, r *Round) error {
	log, last := ledger.Log(v.Name), f.begun
	if note := f.State.Logs[log].Note; note != "" {
		if head, err := audit.Checkpoint(v.policy, []byte(note)); err == nil {
			last = head.Seen(v.policy.Quorum)
		}
	}
	if f.Stale == 0 || now.Sub(last) <= f.Stale {
		return f.over(ctx, ruleStale, log, now, "there is a new witnessed checkpoint", r)
	}
	return f.begin(ctx, ruleStale, log, now, "the log is not being witnessed: there is no checkpoint that a quorum saw since "+stamp(last), f.State.Logs[log].Note, "", r)
}

// begin tells of a log's state, once while it lasts.
func (f *Follower) begin(ctx context.Context, rule string, log ledger.Log, now time.Time, what, kept, shown string, r *Round) error {
	key := rule + " " + string(log)
	if _, told := f.State.Open[key]; told || f.Judge.policy.isOff(rule) {
		return nil
	}
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == rule })
	a := Alert{
		ID: alertID(rule, log, kept, shown), At: now.UTC().Truncate(time.Second), Severity: rules[i].Severity, Rule: rule, Log: log, What: what, Do: rules[i].Do,
	}
	f.pending = append(f.pending, Notice{Alert: a, Log: log, Kept: kept, Shown: shown})
	f.State.Open[key] = a
	return f.settle(ctx, r)
}

// over tells that it has ended.
func (f *Follower) over(ctx context.Context, rule string, log ledger.Log, now time.Time, what string, r *Round) error {
	key := rule + " " + string(log)
	a, told := f.State.Open[key]
	if !told {
		return nil
	}
	a.Over, a.At, a.What = true, now.UTC().Truncate(time.Second), what
	f.pending = append(f.pending, Notice{Alert: a, Log: log})
	delete(f.State.Open, key)
	return f.settle(ctx, r)
}

// settle tells what is pending, and then keeps that it was told.
func (f *Follower) settle(ctx context.Context, r *Round) error {
	if err := f.flush(ctx, r); err != nil {
		return err
	}
	return f.Sink.Save(ctx, f.State)
}

func (f *Follower) flush(ctx context.Context, r *Round) error {
	for len(f.pending) > 0 {
		if err := f.Sink.Tell(ctx, f.pending[0]); err != nil {
			return err
		}
		f.pending = f.pending[1:]
		r.Notices++
	}
	return nil
}

// judge reads what is new of a log, bundle by bundle; whole says that nothing is left. Events after until wait.
func (f *Follower) judge(ctx context.Context, v view, until, now time.Time, r *Round) (whole bool, err error) {
	log, m := ledger.Log(v.Name), f.Judge.Memory()
	wait := !f.Now && !until.IsZero() && until.Before(v.seen)
	for i := m.Judged[log]; i < v.tree.Size; i = m.Judged[log] {
		n := i / 256
		entries, _, err := v.tree.Bundle(ctx, n)
		if err != nil {
			return false, f.missing(ctx, v, now, err, r)
		}
		for ; i < min(v.tree.Size, (n+1)*256); i++ {
			if wait && after(entries[i%256], until) {
				return false, f.verified(ctx, log, now, r)
			}
			if err := f.entry(ctx, v, i, entries[i%256]); err != nil {
				return false, f.missing(ctx, v, now, err, r)
			}
			at := f.State.Logs[log]
			at.Told = max(at.Told, i+1)
			f.State.Logs[log] = at
			if len(f.pending) > 0 {
				if err := f.settle(ctx, r); err != nil {
					return false, err
				}
			}
		}
	}
	r.Size[v.Name] = v.tree.Size
	return true, f.verified(ctx, log, now, r)
}

func (f *Follower) verified(ctx context.Context, log ledger.Log, now time.Time, r *Round) error {
	delete(f.withheld, log)
	for _, rule := range []string{RuleUnverified, ruleWithheld} {
		if err := f.over(ctx, rule, log, now, "the log verifies again", r); err != nil {
			return err
		}
	}
	return f.Sink.Save(ctx, f.State)
}

// after says whether an entry happened after t; one that cannot be read did not.
func after(entry []byte, t time.Time) bool {
	fact, err := wire.DecodeFact(entry)
	return err == nil && fact.At > t.UnixMilli()
}

// entry judges one entry, and makes notices of what was not told before.
func (f *Follower) entry(ctx context.Context, v view, i uint64, entry []byte) error {
	ref := ledger.Ref{Log: ledger.Log(v.Name), Index: i}
	said, err := f.devices(ctx, ref.Log, entry)
	if err != nil {
		return err
	}
	alerts := f.Judge.Entry(ref, entry, v.seen)
	for _, rule := range []string{ruleFaces, ruleFollowed} {
		if said[rule] != "" && !f.Judge.policy.isOff(rule) {
			alerts = append(alerts, alertOf(rule, read(ref, entry, v.seen), entry, said[rule]))
		}
	}
	if len(alerts) == 0 || i < f.State.Logs[ref.Log].Told {
		return nil
	}
	proof, err := prove(ctx, v.tree, i)
	if err != nil {
		proof = "" // that the entry is there was verified with its bundle: the alert goes without what shows it to others
	}
	for _, a := range alerts {
		f.pending = append(f.pending, Notice{Alert: a, Log: ref.Log, Index: &ref.Index, Entry: entry, Proof: proof})
	}
	return nil
}

// devices compares what a device tells of the logs with what they show here, and says by rule what is not so.
func (f *Follower) devices(ctx context.Context, log ledger.Log, entry []byte) (map[string]string, error) {
	fact, err := wire.DecodeFact(entry)
	if err != nil || ledger.Kind(fact.Kind) != ledger.KindDeviceLogAnchored {
		return nil, nil //nolint:nilerr,nilnil // the rules tell of it
	}
	batch, err := batchOf(fact)
	if err != nil {
		return map[string]string{ruleFaces: fmt.Sprintf("it holds no batch of a device's log, in which the trees are that it was shown: %v", err)}, nil
	}
	_, told := f.State.Open[ruleWithheld+" "+string(log)]
	told = told || f.Stale == 0 || f.Judge.policy.isOff(ruleWithheld)
	out := map[string]string{}
	for _, h := range batch.Trees {
		v, known := f.viewOf(h.Origin)
		if !known || !ed25519.Verify(v.Key, []byte(wire.CheckpointText(h.Origin, h.Size, [32]byte(h.Root))), h.Signature) {
			continue // of a log that is not followed, or the device's word alone
		}
		switch {
		case h.Size <= v.tree.Size:
		case f.Now: // the copies of the two logs may be of different times: nobody waits here to see
			continue
		case !told:
			return nil, fetchError{fmt.Errorf("device %s was shown the log %s with %d entries, and here it has %d", batch.Device, v.Name, h.Size, v.tree.Size)}
		default:
			out[ruleFaces] = fmt.Sprintf("device %s was shown the log %s with %d entries, signed by it, and we with %d", batch.Device, v.Name, h.Size, v.tree.Size)
			continue
		}
		root, err := f.rootAt(ctx, v, h.Size)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(root[:], h.Root) {
			out[ruleFaces] = fmt.Sprintf("device %s was shown another log %s of %d entries than we are, and the log has signed both: root %x, here %x", batch.Device, v.Name, h.Size, h.Root, root)
		}
	}
	for _, e := range batch.Events {
		if e.Kind != custody.EventAccepted || e.Cause == nil {
			continue
		}
		v, known := f.viewOf(e.Cause.Origin)
		if !known || f.Now && e.Cause.Index >= v.tree.Size {
			continue
		}
		digest, err := f.commandAt(ctx, v, e.Cause.Index)
		if err != nil {
			return nil, err
		}
		if digest == "" || !strings.Contains(string(e.Data), digest) {
			out[ruleFollowed] = fmt.Sprintf("device %s accepted %.200q in %s/%d, and that is not the command there", batch.Device, e.Data, v.Name, e.Cause.Index)
		}
	}
	return out, nil
}

func batchOf(fact wire.Fact) (wire.LogBatch, error) {
	o, err := wire.Parse1(wire.TypeDeviceLog, fact.Data)
	if err != nil {
		return wire.LogBatch{}, err
	}
	return wire.DecodeLogBatch(o.Payload)
}

// viewOf finds a log that is followed, and can be judged now.
func (f *Follower) viewOf(origin string) (view, bool) {
	i := slices.IndexFunc(f.views, func(v view) bool { return v.Origin == origin && v.tree != nil })
	if i < 0 {
		return view{}, false
	}
	return f.views[i], true
}

// commandAt gives the digest of the command in a place of a log; empty when there is none.
func (f *Follower) commandAt(ctx context.Context, v view, index uint64) (string, error) {
	key := fmt.Sprint(v.Origin, "\n", index)
	if digest, known := f.commands[key]; known || index >= v.tree.Size {
		return digest, nil
	}
	entries, _, err := v.tree.Bundle(ctx, index/256)
	if err != nil {
		return "", err
	}
	digest := ""
	if fact, err := wire.DecodeFact(entries[index%256]); err == nil && ledger.Kind(fact.Kind) == ledger.KindCommandIssued {
		if o, err := wire.Parse1(wire.TypeCommand, fact.Data); err == nil {
			digest = fmt.Sprintf("%x", sha256.Sum256(o.Payload))
		}
	}
	if f.commands == nil || len(f.commands) >= maxRoots {
		f.commands = map[string]string{}
	}
	f.commands[key] = digest
	return digest, nil
}

// maxRoots bounds how many are kept: devices that checked in at the same time were shown the same trees.
const maxRoots = 4096

func (f *Follower) rootAt(ctx context.Context, v view, size uint64) (mirror.Hash, error) {
	key := fmt.Sprint(v.Origin, "\n", size)
	if root, known := f.roots[key]; known {
		return root, nil
	}
	root, err := v.tree.RootAt(ctx, size)
	if err != nil {
		return root, err
	}
	if f.roots == nil || len(f.roots) >= maxRoots {
		f.roots = map[string]mirror.Hash{}
	}
	f.roots[key] = root
	return root, nil
}

// often is after how many entries the memory is kept.
const often = 4096

func (f *Follower) remember(ctx context.Context, always bool) error {
	m := f.Judge.Memory()
	var n uint64
	for log, judged := range m.Judged {
		if judged > f.State.Logs[log].Told || len(f.pending) > 0 {
			return nil // what is not told yet is judged again
		}
		n += judged
	}
	if n == f.remembered || !always && f.remembered > 0 && n < f.remembered+max(often, f.remembered/8) {
		return nil
	}
	if err := f.Sink.Remember(ctx, m); err != nil {
		return err
	}
	f.remembered = n
	return nil
}

// Close keeps the memory, so that the logs need not be read again.
func (f *Follower) Close(ctx context.Context) error { return f.remember(ctx, true) }

// prove writes an entry's proof (c2sp.org/tlog-proof).
func prove(ctx context.Context, t *mirror.Tree, index uint64) (string, error) {
	size := int64(t.Size)
	hashes, err := tlog.ProveRecord(size, int64(index), tlog.TileHashReader(tlog.Tree{N: size, Hash: tlog.Hash(t.Root)}, tiles{ctx, t}))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nindex %d\n", index)
	for _, h := range hashes {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	fmt.Fprintf(&b, "\n%s", t.Note)
	return b.String(), nil
}

// tiles are those of a tree, each verified.
type tiles struct {
	ctx context.Context //nolint:containedctx // of one call of prove; the interface has no place for it
	*mirror.Tree
}

func (tiles) Height() int { return 8 }

func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, w := range want {
		data, err := t.Tile(t.ctx, w.L, uint64(w.N))
		if err != nil {
			return nil, err
		}
		if len(data) < w.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %s: too short", w.Path())
		}
		out = append(out, data[:w.W*tlog.HashSize])
	}
	return out, nil
}

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
