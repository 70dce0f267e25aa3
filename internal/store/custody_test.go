package store_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/wire"
)

var sample = flag.Bool("sample", false, "write the chain of custody that examples/verify is tested with anew")

// custodian gathers over the ending's store and logs.
func (e *ending) custodian() *custody.Service {
	origins := map[string]ledger.Log{}
	for log, t := range e.logs.trust {
		origins[t.Origin] = log
	}
	return custody.NewService(custody.Config{Store: e.db, Ledger: e.logs.Reader, Guard: e.guard, Origins: origins})
}

// trustFile is whom an outsider believes, as a file.
func (e *ending) trustFile() []byte {
	e.t.Helper()
	type log struct {
		Name   string `json:"name"`
		Origin string `json:"origin"`
		Key    []byte `json:"key"`
	}
	var logs []log
	for _, name := range []ledger.Log{ledger.Control, ledger.Events} {
		logs = append(logs, log{string(name), e.logs.trust[name].Origin, e.logs.trust[name].Key})
	}
	data, err := json.MarshalIndent(map[string]any{"logs": logs, "witnesses": e.logs.w.Keys(), "quorum": 1}, "", "  ")
	if err != nil {
		e.t.Fatal(err)
	}
	return append(data, '\n')
}

func (e *ending) trust() audit.Trust {
	e.t.Helper()
	t, err := audit.DecodeTrust(e.trustFile())
	if err != nil {
		e.t.Fatal(err)
	}
	return t
}

// custody gathers a device's chain, and gives it as it travels.
func (e *ending) custody(id string) []byte {
	e.t.Helper()
	e.logs.step(e.t)
	c, err := e.custodian().Gather(e.t.Context(), person("op"), id)
	if err != nil {
		e.t.Fatal(err)
	}
	data, err := wire.EncodeCustody(c)
	if err != nil {
		e.t.Fatal(err)
	}
	return data
}

// judged is what an outsider says of a file: an error, or a report.
func judged(data []byte, trust audit.Trust) (custody.Report, error) {
	c, err := wire.DecodeCustody(data)
	if err != nil {
		return custody.Report{}, err
	}
	return custody.Verify(c, trust)
}

// logs has a device log n events of its own from first on, in one batch that is anchored.
func (e *ending) batch(id string, first, n uint64, head *[32]byte, cause *wire.LogRef) {
	e.t.Helper()
	e.events(id, first, head, slices.Repeat([]wire.LogEvent{{Kind: "boot", Cause: cause}}, int(n))...)
}

// events is batch of these.
func (e *ending) events(id string, first uint64, head *[32]byte, events ...wire.LogEvent) {
	e.t.Helper()
	b := wire.LogBatch{Device: id, First: first, Last: first + uint64(len(events)) - 1, Prev: slices.Clone(head[:]), BootCount: 1}
	for i, ev := range events {
		ev.Seq, ev.Epoch, ev.At = first+uint64(i), 1, uint64(e.now.Unix())
		var err error
		if *head, err = wire.NextLogHead(*head, id, ev); err != nil {
			e.t.Fatal(err)
		}
		b.Events = append(b.Events, ev)
	}
	b.Head = head[:]
	payload, err := wire.EncodeLogBatch(b)
	if err != nil {
		e.t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeDeviceLog, payload, e.keys[id])
	if err != nil {
		e.t.Fatal(err)
	}
	e.made.fact(ledger.New(ledger.KindDeviceLogAnchored, e.now, "device:"+id, id, nil, env))
}

// wipe commands a device's end, and gives the place of the command.
func (e *ending) wipe(id string) wire.LogRef {
	t, ctx := e.t, e.t.Context()
	t.Helper()
	if _, err := e.svc.Retire(ctx, person("op"), e.order(wire.ActWipe, []int{0, 1}, id)); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	e.logs.step(t)
	r, err := e.svc.Get(ctx, person("op"), id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.devices.CommandOf(ctx, person("op"), r.Command)
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := e.logs.Locate(ctx, c.UID)
	if err != nil {
		t.Fatal(err)
	}
	return wire.LogRef{Origin: e.logs.trust[ledger.Control].Origin, Index: at.Index}
}

// lived is a device from the factory to its disposal, with a log of its own.
func lived(t *testing.T, change func(*maker)) (e *ending, id string) {
	e, id = newEndingOf(t, 2, change), devN(0)
	head := wire.LogOrigin(id, spki(t, e.keys[id]))
	e.batch(id, 1, 2, &head, nil)
	ctx := t.Context()
	cause := e.wipe(id)
	e.batch(id, 3, 1, &head, &cause)
	if err := e.svc.Receipt(ctx, access.DeviceCaller(id), id, e.receipt(id, func(r *wire.Receipt) { r.LogSeq = 3 })); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	if _, err := e.svc.Dispose(ctx, person("op"), id, "shredded"); err != nil {
		t.Fatal(err)
	}
	e.goOn()
	return e, id
}

func TestACustodyTellsALifeAndHolds(t *testing.T) {
	e, id := lived(t, func(*maker) {})
	data := e.custody(id)
	if *sample {
		dir := filepath.Join("..", "..", "examples", "verify", "testdata")
		for name, b := range map[string][]byte{"device.hallmark": data, "trust.json": e.trustFile()} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := judged(data, e.trust())
	if err != nil || len(r.Problems) > 0 || r.Product != "pump" {
		t.Fatalf("%v, %q, of product %q", err, r.Problems, r.Product)
	}
	line := func(k ledger.Kind) *custody.Line {
		i := slices.IndexFunc(r.Lines, func(l *custody.Line) bool { return l.Kind == k })
		if i < 0 {
			t.Fatalf("nothing tells of %s", k)
		}
		return r.Lines[i]
	}
	for _, k := range []ledger.Kind{
		ledger.KindBundlePublished, ledger.KindOrderCreated, ledger.KindReleaseApproved, ledger.KindReleasePublished, ledger.KindDeviceProvisioned,
		ledger.KindDeviceState, ledger.KindWarrantIssued, ledger.KindCommandIssued, ledger.KindDeviceLogAnchored, ledger.KindRetireWiped,
	} {
		if l := line(k); l.Checked == "" {
			t.Errorf("%s: nothing was checked but its place", k)
		}
	}
	// Both ways: from what happened to who decided it, and back.
	wiped, command, warrant := line(ledger.KindRetireWiped), line(ledger.KindCommandIssued), line(ledger.KindWarrantIssued)
	if !slices.Contains(wiped.RestsOn, command.Ref) || !slices.Contains(wiped.RestsOn, warrant.Ref) || !slices.Contains(warrant.LedTo, wiped.Ref) {
		t.Errorf("the wipe rests on %v; the warrant led to %v", wiped.RestsOn, warrant.LedTo)
	}
	if made := line(ledger.KindDeviceProvisioned); !slices.Contains(line(ledger.KindOrderCreated).LedTo, made.Ref) {
		t.Errorf("the order led to %v", line(ledger.KindOrderCreated).LedTo)
	}
	if !slices.ContainsFunc(r.Lines, func(l *custody.Line) bool {
		return slices.ContainsFunc(l.Events, func(e custody.Event) bool { return e.Seq == 3 && e.Cause != nil && *e.Cause == command.Ref })
	}) {
		t.Error("no event of the device's own log names the command as its cause")
	}
	// What is another device's is not there.
	if bytes.Contains(data, []byte(devN(1))) {
		t.Error("it tells of another device")
	}
}

// Who takes a device over by its chain of custody learns the attestation key that it has, not the one that it was made with.
func TestACustodyTellsTheAttestationKeyThatADeviceHasNow(t *testing.T) {
	e, id := newEnding(t, 1), devN(0)
	r, err := judged(e.custody(id), e.trust())
	if err != nil || len(r.Problems) > 0 || !bytes.Equal(r.Attest, spki(t, e.keys[id])) {
		t.Fatalf("as it was made: %v, %q, %x", err, r.Problems, r.Attest)
	}
	change := func(identity *ecdsa.PrivateKey) custody.Report {
		t.Helper()
		next := newKey(t)
		envelope, err := wire.SignNewAttestKey(wire.NewAttestKey{Device: id, Origin: "soft", Bundle: 2}, e.keys[id], identity, next)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.Append(ledger.New(ledger.KindDeviceAttestKey, e.now, access.DeviceCaller(id).ID, id, nil, envelope))
		}); err != nil {
			t.Fatal(err)
		}
		r, err := judged(e.custody(id), e.trust())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) == 0 {
			e.keys[id] = next
		}
		return r
	}
	if r := change(e.made.identity[id]); len(r.Problems) > 0 || !bytes.Equal(r.Attest, spki(t, e.keys[id])) {
		t.Fatalf("after a change: %q, %x", r.Problems, r.Attest)
	}
	if r := change(newKey(t)); len(r.Problems) == 0 {
		t.Fatal("a change that another factory identity vouched for holds")
	}
}

func TestAForgedBirthIsNamedInTheCustody(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *maker)
		want   string
	}{
		{"a record by another station", func(m *maker) { m.recorder = newKey(t) }, "by the station of order o"},
		{"an order by another key", func(m *maker) { m.signed = newKey(t) }, "order, by the log's order key"},
		{"a certificate by another OEM", func(m *maker) { m.chain, m.orderCA = authorities(t, m.e.now) }, "anchors"},
		{"keys nobody proved", func(m *maker) { m.proves = newKey(t) }, "does not hold the identity key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEndingOf(t, 1, c.change)
			r, err := judged(e.custody(devN(0)), e.trust())
			if err != nil || !strings.Contains(strings.Join(r.Problems, "\n"), c.want) {
				t.Errorf("%v, %q; want %q", err, r.Problems, c.want)
			}
		})
	}
}

// A server may leave out what it likes and prove the rest honestly. What is bound is missed.
func TestWhatIsLeftOutOfACustodyIsMissed(t *testing.T) {
	e, id := lived(t, func(*maker) {})
	whole, err := wire.DecodeCustody(e.custody(id))
	if err != nil {
		t.Fatal(err)
	}
	// without proves the custody anew without the n-th of its facts of a kind.
	without := func(kind ledger.Kind, n int) wire.Custody {
		out := whole
		out.Logs = nil
		for _, l := range whole.Logs {
			var kept []wire.CustodyEntry
			for _, x := range l.Entries {
				f, err := wire.DecodeFact(x.Entry)
				if err != nil {
					t.Fatal(err)
				}
				if f.Kind == string(kind) {
					if n--; n == -1 {
						continue
					}
				}
				kept = append(kept, x)
			}
			cp, err := e.logs.Latest(t.Context(), ledger.Log(l.Name))
			if err != nil {
				t.Fatal(err)
			}
			proved, err := e.logs.ProveAll(t.Context(), ledger.Log(l.Name), cp, kept)
			if err != nil {
				t.Fatal(err)
			}
			out.Logs = append(out.Logs, proved)
		}
		return out
	}
	for _, c := range []struct {
		kind ledger.Kind
		n    int
		want string
	}{
		{ledger.KindDeviceLogAnchored, 0, "goes on at 3, and was at 0"},
		{ledger.KindDeviceOnboarded, 0, "it left state onboarded, and was provisioned"},
		{ledger.KindDeviceProvisioned, 0, "no production record"},
		{ledger.KindOrderCreated, 0, "the order it was made under is not here"},
		{ledger.KindReleasePublished, 0, "was not published before it"},
		{ledger.KindBundlePublished, 0, "does not begin those of pump"},
		{ledger.KindWarrantIssued, 0, "its command or warrant is not here"},
		{ledger.KindCommandIssued, 0, "the cause of event 3"},
		{ledger.KindRetireWiped, 0, "is not here"},
	} {
		r, err := custody.Verify(without(c.kind, c.n), e.trust())
		if err != nil || !strings.Contains(strings.Join(r.Problems, "\n"), c.want) {
			t.Errorf("without %s: %v, %q; want %q", c.kind, err, r.Problems, c.want)
		}
	}
}

// A device says which entry it acted on. Where the log has something else there, the device was shown a log that nobody else has seen.
func TestADeviceThatFollowedAnotherLogIsNamedInTheCustody(t *testing.T) {
	for _, c := range []struct {
		name    string
		command bool // is the cause that is there; otherwise it is the first entry of all
		event   wire.LogEvent
		want    string
	}{
		{"an entry that is no command", false, wire.LogEvent{Kind: "guard.began", Data: []byte("dormant")}, "which is product.created"},
		{"an entry that is no command, accepted", false, wire.LogEvent{Kind: "directive.accepted", Data: []byte("wipe by command x")}, "which is product.created"},
		{"another command of that name", true, wire.LogEvent{Kind: "directive.accepted", Data: []byte("wipe by command " + strings.Repeat("0", 64))}, "which is command.issued"},
		{"another command", true, wire.LogEvent{Kind: "directive.accepted", Data: []byte("wipe by command x")}, "which is command.issued"},
		{"what a command led to", true, wire.LogEvent{Kind: "guard.began", Data: []byte("dormant")}, ""},
	} {
		e, id := newEndingOf(t, 2, func(*maker) {}), devN(0)
		head, cause := wire.LogOrigin(id, spki(t, e.keys[id])), wire.LogRef{Origin: e.logs.trust[ledger.Control].Origin}
		if c.command {
			cause = e.wipe(id)
		}
		c.event.Cause = &cause
		e.events(id, 1, &head, c.event)
		r, err := judged(e.custody(id), e.trust())
		if got := strings.Join(r.Problems, "\n"); err != nil || !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %v, %q; want %q", c.name, err, r.Problems, c.want)
		}
	}
}

// A device may name whatever it likes as the cause of its events. What no chain of custody could hold is not gathered first.
func TestADeviceThatNamesTooManyCausesIsNotGathered(t *testing.T) {
	e, id := newEndingOf(t, 1, func(*maker) {}), devN(0)
	origin := e.logs.trust[ledger.Events].Origin
	big := strings.Repeat("x", 60<<10)
	for range 1000 {
		e.made.fact(ledger.New(ledger.KindVerdict, e.now, "system:attest", devN(1), nil, []byte(`{"x":"`+big+`"}`)))
	}
	e.logs.step(t)
	cp, err := e.logs.Latest(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	head := wire.LogOrigin(id, spki(t, e.keys[id]))
	for first := uint64(0); first < cp.Size; first += 100 {
		var events []wire.LogEvent
		for i := first; i < min(first+100, cp.Size); i++ {
			events = append(events, wire.LogEvent{Kind: "boot", Cause: &wire.LogRef{Origin: origin, Index: i}})
		}
		e.events(id, first+1, &head, events...)
	}
	e.logs.step(t)
	if _, err := e.custodian().Gather(t.Context(), person("op"), id); err == nil || !strings.Contains(err.Error(), "chain of custody of device "+id+" has more than") {
		t.Errorf("%v", err)
	}
}

// Every byte of the file counts.
func TestEveryFlippedByteOfACustodyIsRefused(t *testing.T) {
	e, id := lived(t, func(*maker) {})
	data, trust := e.custody(id), e.trust()
	if r, err := judged(data, trust); err != nil || len(r.Problems) > 0 {
		t.Fatalf("%v, %q", err, r.Problems)
	}
	bitsOf := func(i int) []int { return []int{i % 8} }
	if os.Getenv("HALLMARK_LONG") != "" {
		bitsOf = func(int) []int { return []int{0, 1, 2, 3, 4, 5, 6, 7} }
	}
	for i := range data {
		for _, bit := range bitsOf(i) {
			data[i] ^= 1 << bit
			if r, err := judged(data, trust); err == nil && len(r.Problems) == 0 {
				t.Errorf("bit %d of byte %d of %d does not count", bit, i, len(data))
			}
			data[i] ^= 1 << bit
		}
	}
	for _, n := range []int{0, 1, len(data) / 2, len(data) - 1} {
		if _, err := judged(data[:n], trust); err == nil {
			t.Errorf("the first %d bytes verify", n)
		}
	}
	if _, err := judged(append(slices.Clone(data), 0), trust); err == nil {
		t.Error("it verifies with a byte behind it")
	}
}

func TestACustodyIsBelievedByNoOthersKeys(t *testing.T) {
	e, id := lived(t, func(*maker) {})
	data := e.custody(id)
	other := newEnding(t, 1)
	for name, change := range map[string]func(*audit.Trust){
		"other logs":          func(tr *audit.Trust) { tr.Logs = other.trust().Logs },
		"another witness":     func(tr *audit.Trust) { tr.Witnesses = other.trust().Witnesses },
		"the logs exchanged":  func(tr *audit.Trust) { tr.Logs[0].Key, tr.Logs[1].Key = tr.Logs[1].Key, tr.Logs[0].Key },
		"a log of other name": func(tr *audit.Trust) { tr.Logs[0].Name = "other" },
		"a quorum of two":     func(tr *audit.Trust) { tr.Quorum = 2 },
	} {
		tr := e.trust()
		change(&tr)
		if _, err := judged(data, tr); err == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
}

func TestACustodyOfNobodyAndOfTheUnwitnessed(t *testing.T) {
	e := newEnding(t, 1)
	if _, err := e.custodian().Gather(t.Context(), person("op"), devN(9)); fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Unavailable {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := e.custodian().Gather(t.Context(), person("op"), devN(0)); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("before anything is witnessed: %v", err)
	}
}
