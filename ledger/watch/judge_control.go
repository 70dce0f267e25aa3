package watch

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

const roleAdmin = "admin"

func unexpectedKey(m *Memory, p Policy, l *line) string {
	switch {
	case p.Keys != nil && has(p.Keys, l.key.id), p.Keys == nil && !m.Settled:
		return ""
	}
	return fmt.Sprintf("%s made the key %.80q, %s", l.fact.Actor, l.key.Name, l.key.id)
}

func unexpectedDesk(_ *Memory, p Policy, l *line) string {
	if p.Keys != nil && has(p.Keys, l.key.id) {
		return ""
	}
	return fmt.Sprintf("%s took in the orders of desk %.80q, with order key %s", l.fact.Actor, l.fact.Subject, l.key.id)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// ofOrder says whether a certificate is one of a CA of an order: it may not make further CAs, and a known authority that may, and is
// not the root, has signed it.
func (m *Memory) ofOrder(c *x509.Certificate) bool {
	above, err := x509.ParseCertificate(m.Authorities[hex.EncodeToString(c.AuthorityKeyId)])
	if err != nil || len(c.Raw) > maxCA || !c.IsCA || !c.MaxPathLenZero || above.MaxPathLenZero || bytes.Equal(above.RawSubject, above.RawIssuer) {
		return false
	}
	return c.CheckSignatureFrom(above) == nil
}

func unexpectedCA(m *Memory, p Policy, l *line) string {
	sum := fingerprint(l.cert.Raw)
	switch {
	case p.Authorities != nil && has(p.Authorities, sum), p.Authorities == nil && !m.Settled, m.ofOrder(l.cert):
		return ""
	}
	return fmt.Sprintf("%s made the authority %.80q under %.80q, with SHA-256 %s", l.fact.Actor, l.cert.Subject.CommonName, l.cert.Issuer.CommonName, sum)
}

func unexpectedProduct(_ *Memory, p Policy, l *line) string {
	product := l.fact.Subject
	if _, there := p.Products[product]; there || p.Products == nil {
		return ""
	}
	return fmt.Sprintf("product %.80q is not in the policy", product)
}

func administrator(m *Memory, p Policy, l *line) string {
	who := l.grant.who()
	if !slices.Contains(l.grant.Roles, roleAdmin) {
		return ""
	}
	if p.Administrators == nil && (len(m.Admins) == 0 || m.Admins[who]) || slices.Contains(p.Administrators, who) {
		return ""
	}
	return fmt.Sprintf("%s made %s an administrator", l.fact.Actor, who)
}

func bundleSignatures(m *Memory, p Policy, l *line) string {
	b := l.bundle
	before := m.inForce(b.Product)
	if _, err := wire.VerifyBundle(before, l.fact.Data); err != nil {
		return err.Error()
	}
	if before == nil && b.Version != 1 {
		return fmt.Sprintf("the first trust bundle of %s is version %d", b.Product, b.Version)
	}
	if b.Product != l.fact.Subject {
		return fmt.Sprintf("the trust bundle of %s is recorded as one of %q", b.Product, l.fact.Subject)
	}
	if _, err := wire.VerifyThreshold(wire.TypeBundle, l.fact.Data, p.Products[b.Product].Root.narrow(b.Root)); err != nil {
		return fmt.Sprintf("by the root keys on the list: %v", err)
	}
	return ""
}

// roles are a trust bundle's, with what the policy says of each.
func roles(p Product, b wire.Bundle) []struct {
	name string
	list *Signers
	set  wire.KeySet
} {
	return []struct {
		name string
		list *Signers
		set  wire.KeySet
	}{{"root", p.Root, b.Root}, {"release", p.Release, b.Release}, {"warrant", p.Warrant, b.Warrant}, {"directive", p.Directive, b.Directive}}
}

func bundleKeys(m *Memory, p Policy, l *line) string {
	before := m.inForce(l.bundle.Product)
	var old []wire.KeySet
	if before != nil {
		old = []wire.KeySet{before.Root, before.Release, before.Warrant, before.Directive}
	}
	for i, r := range roles(p.Products[l.bundle.Product], *l.bundle) {
		for _, k := range r.set.Keys {
			id := keyID(k)
			isNew := before != nil && !slices.ContainsFunc(old[i].Keys, func(o []byte) bool { return bytes.Equal(o, k) })
			if r.list != nil && !r.list.may(id) || r.list == nil && isNew {
				return fmt.Sprintf("key %s (%s) is in the role %s of bundle %d of %s", id, or(m.Keys[id], "not one the instance made"), r.name, l.bundle.Version, l.bundle.Product)
			}
		}
	}
	return ""
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func bundleWeaker(m *Memory, p Policy, l *line) string {
	b, list := *l.bundle, p.Products[l.bundle.Product]
	for _, r := range roles(list, b) {
		if r.list != nil && r.set.Threshold < r.list.Threshold {
			return fmt.Sprintf("role %s of bundle %d asks for %d signatures, the policy for %d", r.name, b.Version, r.set.Threshold, r.list.Threshold)
		}
	}
	if b.Quorum < list.Quorum {
		return fmt.Sprintf("bundle %d asks for %d witnesses, the policy for %d", b.Version, b.Quorum, list.Quorum)
	}
	for name, key := range list.Witnesses {
		if !slices.ContainsFunc(b.Witnesses, func(w wire.NamedKey) bool { return hex.EncodeToString(w.Key) == key }) {
			return fmt.Sprintf("witness %s is not in bundle %d", name, b.Version)
		}
	}
	before := m.inForce(b.Product)
	if before == nil {
		return ""
	}
	return weaker(*before, b)
}

func weaker(before, b wire.Bundle) string {
	olds, news := roles(Product{}, before), roles(Product{}, b)
	for i := range olds {
		if news[i].set.Threshold < olds[i].set.Threshold {
			return fmt.Sprintf("role %s asks for %d signatures, and asked for %d", news[i].name, news[i].set.Threshold, olds[i].set.Threshold)
		}
	}
	for _, w := range before.Witnesses {
		if !slices.ContainsFunc(b.Witnesses, func(o wire.NamedKey) bool { return bytes.Equal(o.Key, w.Key) }) {
			return fmt.Sprintf("witness %s is gone", w.Name)
		}
	}
	same := func(x, y wire.LogTrust) bool { return x.Origin == y.Origin && bytes.Equal(x.Key, y.Key) }
	switch {
	case b.Quorum < before.Quorum:
		return fmt.Sprintf("it asks for %d witnesses, and asked for %d", b.Quorum, before.Quorum)
	case b.Floor < before.Floor:
		return fmt.Sprintf("the floor of the security counter is %d, and was %d", b.Floor, before.Floor)
	case b.Least() < before.Least():
		return fmt.Sprintf("what was closed is installed again: from security counter %d on, and before from %d", b.Least(), before.Least())
	case b.MaxAge > before.MaxAge:
		return fmt.Sprintf("checkpoints may be %d s old, and %d s before", b.MaxAge, before.MaxAge)
	case max(b.Offline, b.MaxAge) > max(before.Offline, before.MaxAge):
		return fmt.Sprintf("proofs that are brought by hand may be %d s old, and %d s before", max(b.Offline, b.MaxAge), max(before.Offline, before.MaxAge))
	case !same(b.Control, before.Control) || !same(b.Events, before.Events):
		return "the key or the name of a log is another"
	}
	for _, a := range b.Anchors {
		if !slices.ContainsFunc(before.Anchors, func(o []byte) bool { return bytes.Equal(o, a) }) {
			return "there is a new anchor for the network, SHA-256 " + fingerprint(a)
		}
	}
	return ""
}

func releaseSigners(m *Memory, p Policy, l *line) string {
	r := l.release
	b := m.inForce(r.Product)
	if b == nil {
		return fmt.Sprintf("it is for product %q, which has no trust bundle", r.Product)
	}
	list := p.Products[r.Product].Release
	role := list.narrow(b.Release)
	for _, s := range l.signers {
		if id := hex.EncodeToString(s[:]); !role.Has(s) {
			return fmt.Sprintf("signed by key %s (%s), which may not sign releases of %s", id, or(m.Keys[id], "not one the instance made"), r.Product)
		}
	}
	if l.kind == ledger.KindReleaseApproved {
		role.Threshold = 1
	}
	if _, err := wire.VerifyThreshold(wire.TypeRelease, l.fact.Data, role); err != nil {
		return err.Error()
	}
	switch {
	case r.Counter < b.Floor:
		return fmt.Sprintf("its security counter is %d, below the floor %d", r.Counter, b.Floor)
	case r.ID != l.fact.Subject:
		return fmt.Sprintf("release %.80q is recorded as %.80q", r.ID, l.fact.Subject)
	}
	return ""
}

func (m *Memory) releaseOf(digest []byte) *release { return m.Releases[hex.EncodeToString(digest)] }

func unproposed(m *Memory, _ Policy, l *line) string {
	if m.releaseOf(l.digest[:]) != nil {
		return ""
	}
	return fmt.Sprintf("nobody had proposed release %.80q, %x", l.release.ID, l.digest)
}

func fourEyes(m *Memory, p Policy, l *line) string {
	r := m.releaseOf(l.digest[:])
	b := m.inForce(l.release.Product)
	if r == nil || b == nil {
		return "" // told by other rules
	}
	if l.kind == ledger.KindReleaseApproved {
		switch {
		case l.fact.Actor == r.Proposer:
			return fmt.Sprintf("%s proposed and approved it", r.Proposer)
		case slices.Contains(r.Approvers, l.fact.Actor):
			return fmt.Sprintf("%s approved it twice", l.fact.Actor)
		}
		return ""
	}
	if want := p.Products[l.release.Product].Release.narrow(b.Release).Threshold; uint(len(r.Approvers)) < want {
		return fmt.Sprintf("published after %d people had approved it, want %d", len(r.Approvers), want)
	}
	return ""
}

func releaseParts(_ *Memory, p Policy, l *line) string {
	list := p.Products[l.release.Product]
	for _, h := range l.release.Hardware {
		if list.Hardware != nil && !slices.Contains(list.Hardware, h) {
			return fmt.Sprintf("it is for hardware %.80q", h)
		}
	}
	for _, c := range l.release.Components {
		if list.Components != nil && !slices.Contains(list.Components, c.Name) {
			return fmt.Sprintf("it has a component %.80q", c.Name)
		}
	}
	return ""
}

func notGood(m *Memory, _ Policy, l *line) string {
	digest := l.said.Release
	if l.command != nil {
		digest = l.command.Release
	}
	if len(digest) == 0 {
		return ""
	}
	switch r := m.releaseOf(digest); {
	case r == nil || !r.Published:
		return fmt.Sprintf("release %x was not published", digest)
	case r.Withdrawn:
		return fmt.Sprintf("release %x was withdrawn", digest)
	}
	return ""
}

func commandSigner(m *Memory, p Policy, l *line) string {
	c := l.command
	b := m.inForce(c.Product)
	if b == nil {
		return fmt.Sprintf("it is for product %q, which has no trust bundle", c.Product)
	}
	role := p.Products[c.Product].Directive.narrow(b.Directive)
	if _, err := role.Verify1(wire.TypeCommand, l.fact.Data); err != nil {
		return err.Error()
	}
	if c.ID != l.fact.Subject {
		return fmt.Sprintf("command %.80q is recorded as %.80q: the server does not do so", c.ID, l.fact.Subject)
	}
	return ""
}

func commandMany(m *Memory, p Policy, l *line) string {
	c := l.command
	bound, bounded := p.perHour(c.Act)
	now := l.at
	if before := m.Clock[l.Log]; before.After(now) || now.After(l.seen.Add(skew)) {
		now = before
	}
	n := m.within(c.Act, now) + min(c.Devices.Count, 1<<40)
	if !bounded || n <= bound {
		return ""
	}
	return fmt.Sprintf("commands to %s were for %d devices within an hour, at most %d are expected", c.Act, n, bound)
}

func commandWarrant(m *Memory, _ Policy, l *line) string {
	c := l.command
	if !wire.NeedsWarrant(c.Act) {
		return ""
	}
	for _, w := range m.Warrants {
		if w.Act == c.Act && w.Product == c.Product && c.Issued <= w.Expires && c.Devices.Count <= w.Devices.Count &&
			(c.Devices.Count < w.Devices.Count || bytes.Equal(c.Devices.Root, w.Devices.Root)) {
			return ""
		}
	}
	return fmt.Sprintf("no warrant allows %s for %d devices of %s", c.Act, c.Devices.Count, c.Product)
}

func warrantSigners(m *Memory, p Policy, l *line) string {
	w := l.warrant
	b := m.inForce(w.Product)
	if b == nil {
		return fmt.Sprintf("it is for product %q, which has no trust bundle", w.Product)
	}
	_, err := wire.VerifyThreshold(wire.TypeWarrant, l.fact.Data, p.Products[w.Product].Warrant.narrow(b.Warrant))
	if err != nil && !ofAnOwner(w) {
		return err.Error()
	}
	if w.ID != l.fact.Subject {
		return fmt.Sprintf("warrant %.80q is recorded as %.80q", w.ID, l.fact.Subject)
	}
	return ""
}

// ofAnOwner reports whether a warrant may be of a device's owner, whose key is not public: it lets go of one time of ownership, which it
// names. Whoever forges one has nothing from it: the device knows the key.
func ofAnOwner(w *wire.Warrant) bool {
	return wire.ChangesOwner(w.Act) && len(w.Owner) > 0 && w.Devices.Count == 1
}

func warrantDevices(_ *Memory, p Policy, l *line) string {
	if n := l.warrant.Devices.Count; n > p.warrantDevices() {
		return fmt.Sprintf("it allows %s for %d devices, at most %d are expected", l.warrant.Act, n, p.warrantDevices())
	}
	return ""
}
