package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// What cannot be true of one device, and what it shows:
//
//	rolling token   two holders of one memory: what one made known as next is not the other's last
//	no token        a memory from before the device kept one
//	boot count      an older copy of the boot manager's counter
//	directives      an older memory: what was accepted once is never unaccepted
//	trust bundle    the same, of the bundle's area
//	never given     a counter ahead of what was given out: the server's state is older than the device, or somebody signs beside it
//	two lines       two programs with one certificate, at once, at two addresses
//
// The device's own log (package devicelog) shows more: two events of one number, a log behind its hardware counter.

// Inconsistency is the Data of a fact about what cannot be true of one device.
type Inconsistency struct {
	Device string `json:"device"`
	What   string `json:"what"`
	Had    uint64 `json:"had"`
	Said   uint64 `json:"said"`
	Sides  []Side `json:"sides,omitempty"` // private: where from
}

// Side is what one holder of a device's identity was seen with.
type Side struct {
	At        time.Time `json:"at"`
	Address   string    `json:"address,omitempty"` // where from; empty: another node took the call, or it was before this one started
	Version   string    `json:"version,omitempty"`
	BootCount uint64    `json:"boot_count"`
	Counter   uint64    `json:"counter"` // highest directive counter accepted
	Bundle    uint64    `json:"bundle"`
}

// inconsistent notes what cannot be true of one device: a copy, or a restored state. It is said once, until somebody has looked (Clear).
func (s *Service) inconsistent(r *Report, in wire.Checkin, before *visit) error {
	i := s.contradiction(r, in)
	if i.What == "" && before != nil && before.alternates {
		i = Inconsistency{What: "two programs call at once, at two addresses"}
	}
	if i.What == "" || r.From.Twin.Suspect != "" {
		return nil
	}
	i.Device, r.Twin.Suspect = r.From.ID, i.What
	had := r.From.Twin
	first := Side{At: r.From.LastSeen.UTC(), Version: had.Version, BootCount: had.BootCount, Counter: had.Accepted, Bundle: had.Bundle}
	second := Side{At: r.At, Version: in.Version, BootCount: in.BootCount, Counter: in.Counter, Bundle: in.Bundle}
	if before != nil {
		first.At, first.Address, second.Address = before.at.UTC(), before.other, before.address
	}
	i.Sides = []Side{first, second}
	r.Twin.Sides = i.Sides
	f, err := jsonFact(ledger.KindDeviceInconsistent, r.At, access.DeviceCaller(i.Device).ID, i.Device, nil, i)
	if err != nil {
		return err
	}
	r.Facts = append(r.Facts, f)
	return nil
}

// OnTrust is the Data of device.on-trust: after a backup was restored a device said more than the backup knows of it, and was believed once.
type OnTrust struct {
	Device   string    `json:"device"`
	Restored time.Time `json:"restored"`
	Counter  uint64    `json:"counter"` // highest directive it says it accepted
	Given    uint64    `json:"given"`   // highest that the backup knows of
}

// onTrust puts on record whom nothing but its own word makes the one that was there before. Another with its identity shows at its next call, as ever.
func (r *Report) onTrust(in wire.Checkin) error {
	if !r.OnTrust {
		return nil
	}
	f, err := jsonFact(ledger.KindDeviceOnTrust, r.At, access.DeviceCaller(r.From.ID).ID, r.From.ID, nil, OnTrust{
		Device: r.From.ID, Restored: r.From.Restored.UTC(), Counter: in.Counter, Given: r.From.Counter,
	})
	if err != nil {
		return err
	}
	r.Facts = append(r.Facts, f)
	return nil
}

// contradiction compares what is said with what is known; r takes the token that holds from now on.
func (s *Service) contradiction(r *Report, in wire.Checkin) Inconsistency {
	had := r.From.Twin
	next, ok := rolled(r.From, in.Token)
	given := max(r.From.Counter, had.Accepted)
	if !r.From.Restored.IsZero() { // it has gone on since the backup
		if !ok && in.Token != nil {
			next, ok, r.OnTrust = tokenDigest(in.Token.Next), true, true
		}
		if in.Counter > given {
			given, r.OnTrust = in.Counter, true
		}
	}
	switch {
	case in.BootCount < had.BootCount:
		return Inconsistency{What: "boot count went back", Had: had.BootCount, Said: in.BootCount}
	case in.Counter < had.Accepted:
		return Inconsistency{What: "directive counter went back", Had: had.Accepted, Said: in.Counter}
	case in.Bundle < had.Bundle:
		return Inconsistency{What: "trust bundle went back", Had: had.Bundle, Said: in.Bundle}
	case in.Counter > given:
		return Inconsistency{What: "accepted a directive never given out", Had: given, Said: in.Counter}
	case !ok && in.Token == nil:
		return Inconsistency{What: "came without its rolling token"}
	case !ok:
		return Inconsistency{What: "its rolling token is not the one it was left with"}
	}
	r.Token = next
	return Inconsistency{}
}

// tokenDigest is what is kept of a token: who reads the database cannot show one.
func tokenDigest(token []byte) string {
	sum := sha256.Sum256(token)
	return hex.EncodeToString(sum[:16])
}

// rolled gives the token that holds after t was shown; false when it is not the device's.
func rolled(d Device, t *wire.Token) (string, bool) {
	if d.Token == TokenAwaited { // and was enrolled since: mustEnrol
		d.Token = ""
	}
	if t == nil {
		return d.Token, d.Token == ""
	}
	next := tokenDigest(t.Next)
	switch {
	case d.Token == next: // the same pair again: the answer was lost, or it is not time for another
		return next, true
	case d.Token == "", startsAnew(d, wire.Checkin{Token: t}), len(t.Last) > 0 && tokenDigest(t.Last) == d.Token:
		return next, true
	}
	return d.Token, false
}

// startsAnew reports whether a device has enrolled with its factory identity since it was last heard of and says that it has lost its memory.
// Who only has a copy of the memory gains nothing by it: the device itself still shows the token that it had.
func startsAnew(d Device, in wire.Checkin) bool {
	return d.TokenAnew && in.Token != nil && len(in.Token.Last) == 0
}

// forgetful is the twin of a device that has lost its memory, and says so: its counters begin again.
func forgetful(t Twin) Twin {
	t.BootCount, t.Accepted, t.Bundle = 0, 0, 0
	return t
}

// TokenAwaited stands in the place of a token's digest from the moment at which somebody has looked into a suspicion (Clear), and when a device was
// given new keys: whoever holds a copy of the memory, token and operational certificate with it, is not heard until the device was enrolled
// with its factory identity. No digest is like it.
const TokenAwaited = "enrol"

// mustEnrol reports whether nothing is taken from a device before it has shown its factory identity again.
func mustEnrol(d Device) bool { return d.Token == TokenAwaited && !d.TokenAnew }

type lineKey struct{}

// WithLine notes the remote address, host:port, of the connection on which a device calls. It names the connection while that lasts.
func WithLine(ctx context.Context, remote string) context.Context {
	return context.WithValue(ctx, lineKey{}, remote)
}

func lineOf(ctx context.Context) string {
	l, _ := ctx.Value(lineKey{}).(string)
	return l
}

// Two lines that are both used again and again after the other was are two programs: one device that changes networks leaves a line behind
// and does not come back to it.
const (
	alternations = 3         // times that a line is taken up again after the other was used
	lineMemory   = time.Hour // a line that was not used for so long is forgotten
	maxLines     = 1 << 17   // devices that are remembered
)

// lines remembers on which two connections each device called last. It is of this node: across nodes tokens tell.
type lines struct {
	mu  sync.Mutex
	now map[string]pair // by device; guarded by mu
}

type pair struct {
	last, other string // remote addresses
	at          time.Time
	back        int // times that the other of the two was taken up again
}

// visit is what is known of the calls before this one.
type visit struct {
	at             time.Time // of the last call
	address, other string    // of this call, and of the last one from elsewhere
	alternates     bool
}

// note takes a call; nil when nothing is known of calls before.
func (l *lines) note(id, line string, now time.Time) *visit {
	if line == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.now = map[string]pair{}
	}
	if len(l.now) >= maxLines {
		for k, p := range l.now {
			if now.Sub(p.at) > lineMemory {
				delete(l.now, k)
			}
		}
		if len(l.now) >= maxLines {
			clear(l.now) // what alternates shows again
		}
	}
	p, known := l.now[id]
	if !known || now.Sub(p.at) > lineMemory {
		l.now[id] = pair{last: line, at: now}
		return nil
	}
	v := &visit{at: p.at, address: host(line), other: host(p.last)}
	switch line {
	case p.last:
		v.other = host(p.other)
	case p.other:
		if host(p.last) != host(line) {
			p.back++
		}
		p.last, p.other = line, p.last
	default: // a new line: whatever the one before the last was, it is not used
		p.last, p.other, p.back = line, p.last, 0
	}
	p.at = now
	v.alternates = p.back >= 2*alternations
	l.now[id] = p
	return v
}

func host(line string) string {
	h, _, err := net.SplitHostPort(line)
	if err != nil {
		return line
	}
	return h
}
