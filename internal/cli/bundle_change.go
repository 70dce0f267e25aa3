package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// bundleChange is what the next trust bundle has differently.
type bundleChange struct {
	floor, install                      uint32
	offline                             time.Duration
	hasOffline                          bool
	hasFloor, hasInstall                bool
	addWitness, removeWitness           []string // verifier keys, and names
	quorum                              uint
	addApprover, removeApprover         []string // [ROLE=]FILE, [ROLE=]KEY
	threshold                           []string // ROLE=N
	directive, logKey, orderKey, bucket []string // names of online keys
	addAnchor, removeAnchor             []string // files, fingerprints
	suites                              []string
	addManager, removeManager           []string // [REVISION,...=]FILE, digests

	keys []keyring.Key // those there are
}

func (c *bundleChange) flags(f *pflag.FlagSet) {
	f.Uint32Var(&c.install, "install", 0, "lowest security counter that may be installed: what runs below it goes on")
	f.Uint32Var(&c.floor, "floor", 0, "lowest security counter that may be installed or booted: what runs below it does not start again")
	f.DurationVar(&c.offline, "offline", 0, "how old what is brought by hand may be, above what all else may, at most 2160h; 0: as all else. Devices of before refuse a trust bundle that says it")
	f.StringArrayVar(&c.addWitness, "add-witness", nil, "verifier key of a further witness (Ed25519)")
	f.StringArrayVar(&c.removeWitness, "remove-witness", nil, "name of a witness to believe no longer")
	f.UintVar(&c.quorum, "quorum", 0, "how many witnesses must have cosigned (0: as many as now)")
	f.StringArrayVar(&c.addApprover, "add-approver", nil, "[ROLE=]FILE: public key (PEM or DER) of a further approver")
	f.StringArrayVar(&c.removeApprover, "remove-approver", nil, "[ROLE=]KEY: key ID, or its beginning, of an approver to believe no longer")
	f.StringArrayVar(&c.threshold, "threshold", nil, "ROLE=N: how many of a role must sign")
	f.StringArrayVar(&c.directive, "directive", nil, "online key that tells devices what to do; again for several")
	f.StringArrayVar(&c.logKey, "log-key", nil, "online key of a log")
	f.StringArrayVar(&c.orderKey, "order-key", nil, "online key that signs production orders, or desk:NAME for the one of a desk; again for several")
	f.StringArrayVar(&c.bucket, "bucket", nil, "online key that devices seal their data for; again for several")
	f.StringArrayVar(&c.addAnchor, "add-anchor", nil, "certificate (PEM or DER) of a further root for the servers")
	f.StringArrayVar(&c.removeAnchor, "remove-anchor", nil, "SHA-256, or its beginning, of a root to believe no longer")
	f.StringArrayVar(&c.suites, "suite", nil, "suite that is accepted, in the place of those there are; again for several: the last is the one that devices make their keys of")
	f.StringArrayVar(&c.addManager, "add-boot-manager", nil, "[REVISION,...=]FILE: hallmark-agent that devices may start by, on some hardware or all; a device that had a trust bundle with one starts by no other any more")
	f.StringArrayVar(&c.removeManager, "remove-boot-manager", nil, "SHA-256, or its beginning, of a hallmark-agent that starts no device any more")
}

// online reports whether names of online keys are to be looked up.
func (c bundleChange) online() bool {
	return len(c.directive)+len(c.logKey)+len(c.orderKey)+len(c.bucket) > 0
}

// ofDesk begins the name of a desk's order key.
const ofDesk = "desk:"

// found gives the keys that can be named: the instance's, and where one of a desk is, the desks', of which those that were removed stay for the proofs of
// what they ordered.
func (c bundleChange) found(ctx context.Context, cl *client.Client) ([]keyring.Key, error) {
	keys, err := cl.Keys(ctx)
	if err != nil || !slices.ContainsFunc(c.orderKey, func(name string) bool { return strings.HasPrefix(name, ofDesk) }) {
		return keys, err
	}
	desks, err := cl.Desks(ctx)
	for _, d := range desks {
		keys = append(keys, keyring.Key{Name: ofDesk + d.Name, Role: keyring.Order, SPKI: d.OrderKey})
	}
	return keys, err
}

// apply gives the bundle with the changes; what is wrong with them is a usage error.
func (c bundleChange) apply(before wire.Bundle) (wire.Bundle, error) {
	b := before
	if c.hasFloor && c.floor <= b.Floor {
		return b, usagef("--floor %d: it is %d already, and only rises", c.floor, b.Floor)
	}
	if c.hasInstall && c.install <= b.Least() {
		return b, usagef("--install %d: it is %d already, and only rises", c.install, b.Least())
	}
	if c.hasOffline {
		if b.Offline = uint64(c.offline / time.Second); c.offline < 0 || b.Offline > 0 && (b.MaxAge == 0 || b.Offline <= b.MaxAge || b.Offline > wire.MaxOffline) {
			return b, usagef("--offline %s: all else may be %s old: want more than that, at most %s, or 0", c.offline, time.Duration(b.MaxAge)*time.Second, wire.MaxOffline*time.Second)
		}
	}
	b.Floor, b.Install = max(b.Floor, c.floor), max(b.Install, c.install)
	if b.Install <= b.Floor { // the floor says it
		b.Install = 0
	}
	for _, step := range []func(*wire.Bundle) error{c.witnesses, c.approvers, c.onlineKeys, c.anchors, c.managers} {
		if err := step(&b); err != nil {
			return b, err
		}
	}
	for _, id := range c.suites {
		if _, err := suite.Get(suite.ID(id)); err != nil {
			return b, usagef("--suite: %v", err)
		}
	}
	if len(c.suites) > 0 {
		b.Suites = c.suites
	}
	if len(bundleChanges(before, b)) == 0 {
		return b, usagef("say what is to change: see `hallmark bundle payload --help`")
	}
	return b, nil
}

// age is how old what is brought by hand may be.
func age(b wire.Bundle) time.Duration {
	return time.Duration(cmp.Or(b.Offline, b.MaxAge)) * time.Second
}

func (c bundleChange) witnesses(b *wire.Bundle) error {
	b.Witnesses = slices.Clone(b.Witnesses)
	for _, name := range c.removeWitness {
		n := len(b.Witnesses)
		if b.Witnesses = slices.DeleteFunc(b.Witnesses, func(w wire.NamedKey) bool { return w.Name == name }); len(b.Witnesses) == n {
			return usagef("--remove-witness %s: the trust bundle names no such witness", name)
		}
	}
	for _, text := range c.addWitness {
		k, err := ledger.ParseVerifierKey(text)
		if err != nil {
			return usageError{err}
		}
		if k.Type != ledger.TypeCosignature {
			return usagef("--add-witness %s: devices verify Ed25519 only: give the witness's key of type 0x04, whose last part begins with B", k.Name)
		}
		b.Witnesses = append(b.Witnesses, wire.NamedKey{Name: k.Name, Key: k.Key})
	}
	if c.quorum > 0 {
		b.Quorum = c.quorum
	}
	if b.Quorum > uint(len(b.Witnesses)) {
		return usagef("a quorum of %d among %d witnesses: no device could act any more", b.Quorum, len(b.Witnesses))
	}
	return nil
}

func (c bundleChange) managers(b *wire.Bundle) error {
	b.BootManagers = slices.Clone(b.BootManagers)
	for _, text := range c.removeManager {
		n := len(b.BootManagers)
		b.BootManagers = slices.DeleteFunc(b.BootManagers, func(m wire.BootManager) bool {
			return len(text) >= 8 && strings.HasPrefix(hex.EncodeToString(m.Digest), text)
		})
		if n-len(b.BootManagers) != 1 {
			return usagef("--remove-boot-manager %s: the trust bundle names %d that begin so: want one, by at least 8 digits", text, n-len(b.BootManagers))
		}
	}
	for _, text := range c.addManager {
		m, err := bootManager(text)
		if err != nil {
			return err
		}
		b.BootManagers = append(b.BootManagers, m)
	}
	if len(c.removeManager) > 0 && len(b.BootManagers) == 0 {
		return usagef("--remove-boot-manager: it is the last: no device that demands one would take that bundle")
	}
	return nil
}

// bootManager reads [REVISION,...=]FILE.
func bootManager(text string) (m wire.BootManager, err error) {
	revisions, path, ok := strings.Cut(text, "=")
	if !ok {
		path = text
	} else {
		m.Hardware = strings.Split(revisions, ",")
	}
	f, err := os.Open(path)
	if err != nil {
		return m, usageError{err}
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	m.Digest = h.Sum(nil)
	return m, errors.Join(err, f.Close())
}

// offline finds the roles that [ROLE=]value is about.
func offline(b *wire.Bundle, flag, text string) (roles []*wire.KeySet, value string, err error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return []*wire.KeySet{&b.Root, &b.Release, &b.Warrant}, text, nil
	}
	role, ok := map[string]*wire.KeySet{"root": &b.Root, "release": &b.Release, "warrant": &b.Warrant}[name]
	if !ok {
		return nil, "", usagef("--%s %s: no role %q: want root, release or warrant", flag, text, name)
	}
	return []*wire.KeySet{role}, value, nil
}

func (c bundleChange) approvers(b *wire.Bundle) error {
	for _, text := range c.removeApprover {
		roles, id, err := offline(b, "remove-approver", text)
		if err != nil {
			return err
		}
		found := false
		for _, r := range roles {
			keys := slices.DeleteFunc(slices.Clone(r.Keys), func(der []byte) bool { return len(id) >= 8 && strings.HasPrefix(keyName(der), id) })
			found = found || len(keys) != len(r.Keys)
			r.Keys = keys
		}
		if !found {
			return usagef("--remove-approver %s: no key of the role begins so (8 digits at least): see `hallmark bundle show`", text)
		}
	}
	for _, text := range c.addApprover {
		roles, file, err := offline(b, "add-approver", text)
		if err != nil {
			return err
		}
		der, err := readPEM(file, "PUBLIC KEY")
		if err != nil {
			return err
		}
		if _, err := wire.ParseKey(der); err != nil {
			return usagef("--add-approver %s: %v", text, err)
		}
		for _, r := range roles {
			r.Keys = append(slices.Clone(r.Keys), der)
		}
	}
	for _, text := range c.threshold {
		if !strings.Contains(text, "=") {
			return usagef("--threshold %s: want ROLE=N", text)
		}
		roles, value, err := offline(b, "threshold", text)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			return usagef("--threshold %s: want ROLE=N", text)
		}
		roles[0].Threshold = uint(n)
	}
	for name, r := range map[string]wire.KeySet{"root": b.Root, "release": b.Release, "warrant": b.Warrant} {
		if err := r.Check(); err != nil {
			return usagef("role %s: %v", name, err)
		}
	}
	return nil
}

// named finds online keys of a role, or of roles that begin so.
func (c bundleChange) named(flag string, names []string, role keyring.Role) (out []keyring.Key, err error) {
	for _, name := range names {
		i := slices.IndexFunc(c.keys, func(k keyring.Key) bool {
			return k.Name == name && k.Retired.IsZero() && strings.HasPrefix(string(k.Role), string(role))
		})
		if i < 0 {
			return nil, usagef("--%s %s: no such online key is used: see `hallmark key list`", flag, name)
		}
		out = append(out, c.keys[i])
	}
	return out, nil
}

func (c bundleChange) onlineKeys(b *wire.Bundle) error {
	directive, err := c.named("directive", c.directive, keyring.Directive)
	if err != nil {
		return err
	}
	logs, err := c.named("log-key", c.logKey, "log-")
	if err != nil {
		return err
	}
	orders, err := c.named("order-key", c.orderKey, keyring.Order)
	if err != nil {
		return err
	}
	buckets, err := c.named("bucket", c.bucket, keyring.Bucket)
	if err != nil {
		return err
	}
	role := func(keys []keyring.Key) wire.KeySet {
		s := wire.KeySet{Threshold: 1}
		for _, k := range keys {
			s.Keys = append(s.Keys, k.SPKI)
		}
		return s
	}
	if len(directive) > 0 {
		b.Directive = role(directive)
	}
	if len(orders) > 0 {
		r := role(orders)
		b.Orders = &r
	}
	for _, k := range logs {
		if k.Role == keyring.LogControl {
			b.Control.Key = k.SPKI
		} else {
			b.Events.Key = k.SPKI
		}
	}
	if len(buckets) > 0 {
		kem := uint16(0x0050) // MLKEM768-P256, which all buckets are of
		b.Telemetry = nil
		for _, k := range buckets {
			b.Telemetry = append(b.Telemetry, wire.StreamKey{Bucket: strings.TrimPrefix(k.Name, "bucket-"), KEM: kem, Key: k.SPKI})
		}
	}
	return nil
}

func (c bundleChange) anchors(b *wire.Bundle) error {
	b.Anchors = slices.Clone(b.Anchors)
	for _, print := range c.removeAnchor {
		n := len(b.Anchors)
		if b.Anchors = slices.DeleteFunc(b.Anchors, func(der []byte) bool {
			return len(print) >= 8 && strings.HasPrefix(anchorName(der), print)
		}); len(b.Anchors) == n {
			return usagef("--remove-anchor %s: no anchor's SHA-256 begins so (8 digits at least)", print)
		}
	}
	for _, file := range c.addAnchor {
		der, err := readPEM(file, "CERTIFICATE")
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil || !cert.IsCA {
			return usagef("--add-anchor %s: it is no certificate of a CA: %v", file, err)
		}
		b.Anchors = append(b.Anchors, der)
	}
	if len(b.Anchors) == 0 {
		return usagef("no anchor would be left: no device could verify a server")
	}
	return nil
}

// readPEM reads a file of one PEM block, or of its bytes alone.
func readPEM(path, kind string) ([]byte, error) {
	data, err := readFile(path, 64<<10)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != kind {
			return nil, usagef("%s holds a %s, want a %s", path, block.Type, kind)
		}
		return block.Bytes, nil
	}
	return data, nil
}

func keyName(der []byte) string {
	id := wire.KeyIDOfSPKI(der)
	return hex.EncodeToString(id[:])
}

func anchorName(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// bundleChanges says in words what differs, for those who sign it.
func bundleChanges(before, b wire.Bundle) []string {
	var d difference
	d.role("root", before.Root, b.Root)
	d.role("release", before.Release, b.Release)
	d.role("warrant", before.Warrant, b.Warrant)
	d.role("directive", before.Directive, b.Directive)
	none := wire.KeySet{}
	d.role("orders", *cmp.Or(before.Orders, &none), *cmp.Or(b.Orders, &none))
	d.log("control log", before.Control, b.Control)
	d.log("events log", before.Events, b.Events)
	d.witnesses(before, b)
	if before.Floor != b.Floor {
		d.say("floor: nothing below security counter %d runs, %d until now", b.Floor, before.Floor)
	}
	if before.Least() != b.Least() {
		d.say("closes: nothing below security counter %d is installed, %d until now; what runs goes on from %d", b.Least(), before.Least(), b.Floor)
	}
	if before.Offline != b.Offline {
		d.say("what is brought by hand may be %s old, %s until now", age(b), age(before))
	}
	manager := func(ms []wire.BootManager) (out [][]byte) {
		for _, m := range ms {
			out = append(out, fmt.Appendf(nil, "%x for %s", m.Digest, cmp.Or(strings.Join(m.Hardware, ", "), "all hardware")))
		}
		return out
	}
	d.set("starts devices", manager(before.BootManagers), manager(b.BootManagers), func(k []byte) string { return "boot manager " + string(k) })
	d.set("servers", before.Anchors, b.Anchors, func(k []byte) string { return "the root " + anchorName(k)[:32] })
	suites := func(s []string) (out [][]byte) {
		for _, n := range s {
			out = append(out, []byte(n))
		}
		return out
	}
	d.set("suite", suites(before.Suites), suites(b.Suites), func(k []byte) string { return string(k) })
	stream := func(ts []wire.StreamKey) (out [][]byte) {
		for _, t := range ts {
			out = append(out, t.Key)
		}
		return out
	}
	d.set("data is sealed for", stream(before.Telemetry), stream(b.Telemetry), func(k []byte) string { return "key " + keyName(k) })
	if len(d) == 0 && len(b.Telemetry) > 0 && len(before.Telemetry) > 0 && !bytes.Equal(b.Telemetry[0].Key, before.Telemetry[0].Key) {
		d.say("data is sealed for key %s first", keyName(b.Telemetry[0].Key))
	}
	return d
}

// difference is a list of changes, in words.
type difference []string

func (d *difference) say(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

func (d *difference) set(what string, had, has [][]byte, name func([]byte) string) {
	for _, k := range had {
		if !slices.ContainsFunc(has, func(o []byte) bool { return bytes.Equal(o, k) }) {
			d.say("%s: %s is believed no longer", what, name(k))
		}
	}
	for _, k := range has {
		if !slices.ContainsFunc(had, func(o []byte) bool { return bytes.Equal(o, k) }) {
			d.say("%s: %s is believed from now on", what, name(k))
		}
	}
}

func (d *difference) role(what string, had, has wire.KeySet) {
	d.set(what, had.Keys, has.Keys, func(k []byte) string { return "key " + keyName(k) })
	if had.Threshold != has.Threshold {
		d.say("%s: %d must sign, %d until now", what, has.Threshold, had.Threshold)
	}
}

func (d *difference) log(name string, had, has wire.LogTrust) {
	if had.Origin != has.Origin {
		d.say("%s: it is %s, %s until now", name, has.Origin, had.Origin)
	}
	if !bytes.Equal(had.Key, has.Key) {
		d.say("%s: its key is %s, %s until now", name, keyName(has.Key), keyName(had.Key))
	}
}

func (d *difference) witnesses(before, b wire.Bundle) {
	names := map[string]string{}
	keys := func(ws []wire.NamedKey) (out [][]byte) {
		for _, w := range ws {
			out = append(out, w.Key)
			names[string(w.Key)] = w.Name
		}
		return out
	}
	d.set("witness", keys(before.Witnesses), keys(b.Witnesses), func(k []byte) string { return names[string(k)] + " (key " + keyName(k) + ")" })
	if before.Quorum != b.Quorum {
		d.say("witnesses: %d must have cosigned, %d until now", b.Quorum, before.Quorum)
	}
	if before.MaxAge != b.MaxAge {
		d.say("witnesses: a cosignature counts for %d s, %d s until now", b.MaxAge, before.MaxAge)
	}
}
