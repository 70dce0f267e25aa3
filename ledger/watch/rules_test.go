package watch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/watch"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func TestAnOrdinaryLifeAlarmsNobody(t *testing.T) {
	l := ordinary(t)
	all, j := l.judged(watch.Policy{})
	for _, a := range all {
		t.Error(a)
	}
	p := j.Memory().Propose()
	p.Products[product] = withParts(p.Products[product])
	all, _ = l.judged(p)
	for _, a := range all {
		t.Errorf("by the policy that was proposed: %s", a)
	}
}

func withParts(p watch.Product) watch.Product {
	p.Hardware, p.Components = []string{hardware}, []string{"app"}
	return p
}

// wrongs are the ways in which a life can go wrong: what is done after an ordinary one, and the rules that tell of the last entry.
var wrongs = []struct {
	name  string
	do    func(*life)
	rules string // that are told, separated by spaces
}{
	{"an entry that is no fact", func(l *life) { l.raw(ledger.Control, []byte{0xff}) }, "entry.malformed"},
	{"a release that is none", func(l *life) { l.fact(ledger.Control, ledger.KindReleaseProposed, "a", "x", []byte("x")) }, "entry.malformed"},
	{"a kind that is new", func(l *life) { l.json(ledger.Events, "device.sings", "a", "x", 1) }, "kind.unknown"},
	{"a release in the wrong log", func(l *life) {
		payload, _ := l.manifest("lock-2", 2)
		l.fact(ledger.Events, ledger.KindReleaseProposed, "person:rita", "lock-2", payload)
	}, "kind.misplaced"},
	{"a fact of yesterday", func(l *life) {
		now := l.now
		l.now = l.now.Add(-24 * time.Hour)
		l.grant("person:x", "viewer")
		l.now = now
	}, "time.backwards"},
	{"a fact of tomorrow", func(l *life) {
		now := l.now
		l.now = l.now.Add(24 * time.Hour)
		l.grant("person:x", "viewer")
		l.now = now
	}, "time.ahead"},
	{"another key", func(l *life) { l.created("mallory") }, "key.unexpected"},
	{"another CA under the root", func(l *life) { l.authority("shadow", profile.Operational, "host:init") }, "ca.unexpected"},
	{"another root", func(l *life) {
		r, err := pki.NewRoot(oem, l.key("evil root"), l.now)
		l.must(err)
		l.fact(ledger.Control, ledger.KindCACreated, "host:init", "root", r.Cert.Raw)
	}, "ca.unexpected"},
	{"another administrator", func(l *life) { l.grant("person:mallory", "admin") }, "access.administrator"},
	{"a member made administrator", func(l *life) {
		l.json(ledger.Control, ledger.KindAccessChanged, "person:admin", "person:eve", map[string]any{"id": "person:eve", "roles": []string{"viewer", "admin"}})
	}, "access.administrator"},
	{"another product", func(l *life) {
		l.json(ledger.Control, ledger.KindProductCreated, "person:admin", "toaster", map[string]string{"id": "toaster"})
	}, "product.unexpected"},

	{"a bundle by one", func(l *life) { l.bundled(l.next(func(*wire.Bundle) {}), "alice") }, "bundle.signatures"},
	{"a bundle by strangers", func(l *life) {
		l.bundled(l.next(func(b *wire.Bundle) { b.Root = l.role(1, "mallory") }), "mallory")
	}, "bundle.signatures bundle.keys bundle.weaker"},
	{"a bundle that skips a version", func(l *life) { l.bundled(l.next(func(b *wire.Bundle) { b.Version++ }), "alice", "bob") }, "bundle.signatures"},
	{"the same version again", func(l *life) { l.bundled(l.bundle, "alice", "bob") }, "bundle.signatures"},
	{"a bundle with another key", func(l *life) {
		l.bundled(l.next(func(b *wire.Bundle) { b.Release = l.role(2, "alice", "bob", "carol", "mallory") }), "alice", "bob")
	}, "bundle.keys"},
	{"a lower threshold", func(l *life) {
		l.bundled(l.next(func(b *wire.Bundle) { b.Release.Threshold = 1 }), "alice", "bob")
	}, "bundle.weaker"},
	{"a lower quorum", func(l *life) { l.bundled(l.next(func(b *wire.Bundle) { b.Quorum = 1 }), "alice", "bob") }, "bundle.weaker"},
	{"a witness less", func(l *life) {
		l.bundled(l.next(func(b *wire.Bundle) {
			b.Witnesses = []wire.NamedKey{b.Witnesses[0], {Name: "w3", Key: hash("w3")}}
		}), "alice", "bob")
	}, "bundle.weaker"},
	{"another log's key", func(l *life) { l.bundled(l.next(func(b *wire.Bundle) { b.Control.Key = hash("k") }), "alice", "bob") }, "bundle.weaker"},
	{"older checkpoints", func(l *life) { l.bundled(l.next(func(b *wire.Bundle) { b.MaxAge *= 10 }), "alice", "bob") }, "bundle.weaker"},
	{"another anchor", func(l *life) {
		r, err := pki.NewRoot(oem, l.key("evil root"), l.now)
		l.must(err)
		l.bundled(l.next(func(b *wire.Bundle) { b.Anchors = append(slices.Clone(b.Anchors), r.Cert.Raw) }), "alice", "bob")
	}, "bundle.weaker"},

	{"a release by a stolen key and nobody else", func(l *life) {
		payload, _ := l.manifest("lock-9", 9)
		l.fact(ledger.Control, ledger.KindReleasePublished, "person:rita", "lock-9", l.signed(wire.TypeRelease, payload, "alice"))
	}, "release.signers release.unproposed"},
	{"a release by a stranger", func(l *life) {
		payload, _ := l.manifest("lock-9", 9)
		l.fact(ledger.Control, ledger.KindReleaseProposed, "person:rita", "lock-9", payload)
		l.fact(ledger.Control, ledger.KindReleaseApproved, "person:alice", "lock-9", l.signed(wire.TypeRelease, payload, "mallory"))
	}, "release.signers"},
	{"approved by who proposed", func(l *life) {
		payload, _ := l.manifest("lock-9", 9)
		l.fact(ledger.Control, ledger.KindReleaseProposed, "person:alice", "lock-9", payload)
		l.fact(ledger.Control, ledger.KindReleaseApproved, "person:alice", "lock-9", l.signed(wire.TypeRelease, payload, "alice"))
	}, "release.four-eyes"},
	{"published without so many approvals", func(l *life) {
		payload, _ := l.manifest("lock-9", 9)
		l.fact(ledger.Control, ledger.KindReleaseProposed, "person:rita", "lock-9", payload)
		l.fact(ledger.Control, ledger.KindReleasePublished, "person:rita", "lock-9", l.signed(wire.TypeRelease, payload, "alice", "bob"))
	}, "release.four-eyes"},
	{"a command for a release that was withdrawn", func(l *life) {
		l.json(ledger.Control, ledger.KindReleaseWithdrawn, "person:rita", "lock-1", map[string]string{"release": hex.EncodeToString(l.digest)})
		l.command(wire.ActInstall, 1, nil)
	}, "release.unpublished"},
	{"a rollout of something else", func(l *life) {
		l.json(ledger.Control, ledger.KindRolloutCreated, "person:olga", "roll-2", map[string]any{"release": hash("x")})
	}, "release.unpublished"},

	{"a command by another key", func(l *life) {
		l.commanded(wire.Command{ID: "c", Product: product, Act: wire.ActAttest, Devices: set(1), Issued: 1, Expires: 2}, "c", "mallory")
	}, "command.signer"},
	{"a command under another name", func(l *life) {
		l.commanded(wire.Command{ID: "c", Product: product, Act: wire.ActAttest, Devices: set(1), Issued: 1, Expires: 2}, product, "directive")
	}, "command.signer"},
	{"a quarantine of many, in parts", func(l *life) {
		l.command(wire.ActQuarantine, 60, nil)
		l.command(wire.ActQuarantine, 40, nil)
	}, "command.many"},
	{"a wipe without warrant", func(l *life) { l.command(wire.ActWipe, 2, nil) }, "command.warrant"},
	{"a wipe of others than the warrant's", func(l *life) {
		l.command(wire.ActWipe, 1, func(c *wire.Command) { c.Devices.Root = hash("others") })
	}, "command.warrant"},
	{"a warrant by one", func(l *life) { l.warrant("war-2", wire.ActWipe, 1, "alice") }, "warrant.signers"},
	{"a warrant for many", func(l *life) { l.warrant("war-2", wire.ActWipe, 101, "alice", "bob") }, "warrant.devices"},

	{"a desk", func(l *life) { l.desk("berlin") }, "desk.unexpected"},
	{"an order by another key", func(l *life) { l.orderCA("ord-2", "product"); l.place("ord-2", 1, "mallory") }, "order.unsound"},
	{"an order whose CA was not made", func(l *life) {
		l.orderCA("ord-2", "product")
		l.entries[ledger.Control] = l.entries[ledger.Control][:len(l.entries[ledger.Control])-1]
		l.order = l.order[:len(l.order)-1]
		l.place("ord-2", 1, "order")
	}, "order.unsound"},
	{"a device after the closing", func(l *life) {
		l.now = l.now.Add(10 * time.Minute)
		l.made(deviceID(2), 2, nil)
	}, "order.ended"},
	{"a device after the end", func(l *life) {
		l.ordered("ord-2", 3)
		l.seq = 0
		l.made(deviceID(2), 2, func(r *wire.Record) { r.Time = l.header.NotAfter + 1000 })
	}, "order.ended"},
	{"a device beyond the quota", func(l *life) { l.made(deviceID(9), 9, nil) }, "order.quota"},
	{"a device of no order", func(l *life) {
		l.made(deviceID(2), 2, func(r *wire.Record) { r.Order = "ord-7" })
	}, "device.record"},
	{"a device with another's certificate", func(l *life) {
		l.made(deviceID(2), 2, func(r *wire.Record) {
			r.Certificate = l.certificate(idevid.IDevID, deviceID(3), "ord-1", l.key("id "+deviceID(2)).Public())
		})
	}, "device.record"},
	{"a device without proof of its keys", func(l *life) {
		l.made(deviceID(2), 2, func(r *wire.Record) { r.Nonce = hash("other") })
	}, "device.record"},
	{"a record by another station", func(l *life) { l.station = l.key("mallory"); l.made(deviceID(2), 2, nil) }, "device.record"},
	{"a device twice", func(l *life) { l.made(deviceID(0), 2, nil) }, "device.twice"},
	{"a chip twice", func(l *life) { l.chip = deviceID(0); l.made(deviceID(2), 2, nil) }, "device.twice"},
	{"a key twice", func(l *life) {
		l.keys["id "+deviceID(2)] = l.key("id " + deviceID(0))
		l.made(deviceID(2), 2, nil)
	}, "device.twice"},
	{"a ticket twice", func(l *life) { l.made(deviceID(2), 1, nil) }, "device.twice"},
	{"a certificate by another CA", func(l *life) {
		l.authority("shadow", profile.Operational, "host:init")
		l.certified(deviceID(0), "shadow", nil)
	}, "cert.issuer"},
	{"a certificate of another device", func(l *life) {
		l.certified(deviceID(0), "operational", func(d *string) { *d = deviceID(1) })
	}, "cert.issuer"},
	{"a certificate for what was never made", func(l *life) { l.certified(deviceID(5), "operational", nil) }, "cert.unborn"},
	{"a certificate for what was wiped", func(l *life) { l.certified(deviceID(1), "operational", nil) }, "cert.retired"},
	{"a device that is perhaps a copy", func(l *life) {
		l.json(ledger.Events, ledger.KindDeviceInconsistent, "device:x", deviceID(0), map[string]string{})
	}, "device.suspect"},
}

func names(all []watch.Alert, of ledger.Ref) string {
	var out []string
	for _, a := range all {
		if a.Log == of.Log && *a.Index == of.Index {
			out = append(out, a.Rule)
		}
	}
	return strings.Join(out, " ")
}

// Each wrong is told by its rule and no other, by the policy that was proposed of the life before, and, but for what only a list can
// say, without one.
func TestWhatShouldNotBeIsTold(t *testing.T) {
	onlyListed := []string{"product.unexpected"}
	for _, w := range wrongs {
		t.Run(w.name, func(t *testing.T) {
			l := ordinary(t)
			_, j := l.judged(watch.Policy{})
			listed := j.Memory().Propose()
			w.do(l)
			last := l.order[len(l.order)-1]
			for _, p := range []watch.Policy{listed, {}} {
				all, _ := l.judged(p)
				want := w.rules
				if p.Products == nil && slices.Contains(onlyListed, want) {
					want = ""
				}
				if got := names(all, last); got != want {
					t.Errorf("listed %v: told %q, want %q: %v", p.Products != nil, got, want, all)
				}
				p.Off = strings.Fields(w.rules)
				if all, _ := l.judged(p); names(all, last) != "" {
					t.Errorf("switched off, and told: %v", all)
				}
			}
		})
	}
}

func TestEveryRuleIsShown(t *testing.T) {
	shown := map[string]bool{ // elsewhere
		"log.forked": true, "log.smaller": true, "log.unverified": true, "log.stale": true, "log.withheld": true, "log.faces": true, "device.followed": true, "memory.full": true, "release.parts": true,
	}
	for _, w := range wrongs {
		for r := range strings.FieldsSeq(w.rules) {
			shown[r] = true
		}
	}
	for _, r := range watch.Rules() {
		if !shown[r.Name] {
			t.Errorf("no test shows %s", r.Name)
		}
		delete(shown, r.Name)
	}
	for r := range shown {
		t.Errorf("there is no rule %s", r)
	}
}

func TestAReleaseKeepsToTheListedParts(t *testing.T) {
	l := ordinary(t)
	for name, p := range map[string]watch.Product{"hardware": {Hardware: []string{"b"}}, "components": {Components: []string{"model"}}} {
		all, _ := l.judged(watch.Policy{Products: map[string]watch.Product{product: p}})
		if len(all) != 2 || all[0].Rule != "release.parts" {
			t.Errorf("%s: %v", name, all)
		}
	}
}

// With fewer people on the list than the trust bundle has, a release by the others is told, valid as it is.
func TestTheListIsNarrowerThanTheBundle(t *testing.T) {
	l := ordinary(t)
	_, j := l.judged(watch.Policy{})
	p := j.Memory().Propose()
	release := p.Products[product].Release
	delete(release.Keys, "bob")
	all, _ := l.judged(p)
	told := map[string]bool{}
	for _, a := range all {
		told[a.Rule+" "+string(a.Kind)] = true
	}
	want := map[string]bool{
		"bundle.keys bundle.published": true, "release.signers release.approved": true, "release.signers release.published": true,
		"release.four-eyes release.published": true, "release.unpublished rollout.created": true, "release.unpublished command.issued": true, // it counts for nothing
	}
	if !maps.Equal(told, want) {
		t.Errorf("%v", all)
	}
}

func TestTheMemoryIsBoundedAndSaysSo(t *testing.T) {
	l := ordinary(t)
	all, j := l.judged(watch.Policy{Devices: 1})
	var full int
	for _, a := range all {
		if a.Rule == "memory.full" {
			full++
		}
	}
	if full != 1 || !j.Memory().Full {
		t.Errorf("told %d times: %v", full, all)
	}
}

// What is remembered is enough: judged in two parts, with the memory written and read between, a life is judged the same.
func TestAMemoryGoesOnWhereItWas(t *testing.T) {
	l := ordinary(t)
	for _, w := range wrongs {
		w.do(l)
		if l.now.After(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)) || len(l.order) == 0 {
			t.Fatal("the story has left its day")
		}
	}
	whole, _ := l.judged(watch.Policy{})
	for cut := 0; cut < len(l.order); cut += 3 {
		j := watch.NewJudge(watch.Policy{}, nil)
		var got []watch.Alert
		for i, ref := range l.order {
			if i == cut {
				data, err := j.Memory().Encode()
				if err != nil {
					t.Fatal(err)
				}
				m, err := watch.DecodeMemory(data, watch.Policy{})
				if err != nil && i > 0 {
					t.Fatal(err)
				}
				j = watch.NewJudge(watch.Policy{}, m)
			}
			got = append(got, j.Entry(ref, l.entries[ref.Log][ref.Index], l.now.Add(time.Minute))...)
		}
		if !slices.EqualFunc(got, whole, func(a, b watch.Alert) bool { return a.ID == b.ID }) {
			t.Fatalf("cut at %d: %d alerts, want %d", cut, len(got), len(whole))
		}
	}
}

func TestAMemoryOfAnotherPolicyIsNotUsed(t *testing.T) {
	l := ordinary(t)
	_, j := l.judged(watch.Policy{})
	data, err := j.Memory().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.DecodeMemory(data, watch.Policy{Devices: 7}); err == nil {
		t.Error("used")
	}
}

// An order is held against the keys that were for orders when it was made: the instance's, one after another, and those of desks.
func TestOrdersAreOfTheKeysOfTheirTime(t *testing.T) {
	l := ordinary(t)
	_, j := l.judged(watch.Policy{})
	p := j.Memory().Propose()
	wants := map[string]string{}
	order := func(id, by, want string) {
		l.orderCA(id, "product")
		l.place(id, 1, by)
		wants[id] = want
		l.now = l.now.Add(time.Minute)
	}
	order("ord-2", "order-2", "order.unsound")
	for _, name := range []string{"order-2", "berlin"} {
		sum := sha256.Sum256(l.spki(l.key(name)))
		p.Keys[name] = hex.EncodeToString(sum[:16])
	}
	l.json(ledger.Control, ledger.KindKeyCreated, "person:adam", "order-2", map[string]any{"name": "order-2", "purpose": "order", "spki": l.spki(l.key("order-2"))})
	order("ord-3", "order-2", "")
	order("ord-4", "order", "")
	order("ord-5", "berlin", "order.unsound")
	l.desk("berlin")
	order("ord-6", "berlin", "")
	l.json(ledger.Control, ledger.KindKeyRetired, "person:adam", "order", map[string]any{"name": "order", "purpose": "order", "spki": l.spki(l.key("order"))})
	l.json(ledger.Control, ledger.KindDeskRemoved, "person:sam", "berlin", map[string]any{"desk": "berlin", "order_key": l.spki(l.key("berlin"))})
	l.now = l.now.Add(time.Minute)
	order("ord-7", "order", "order.unsound")
	order("ord-8", "berlin", "order.unsound")
	order("ord-9", "order-2", "")
	l.now = l.now.Add(-6 * time.Minute) // it was made before, and is registered late
	l.orderCA("ord-10", "product")
	l.place("ord-10", 1, "berlin")
	wants["ord-10"] = ""
	all, _ := l.judged(p)
	told := map[string]string{}
	for _, a := range all {
		if strings.HasPrefix(a.Rule, "order.") {
			told[a.Subject] = a.Rule
		}
	}
	for id, want := range wants {
		if told[id] != want {
			t.Errorf("%s: told %q, want %q: %v", id, told[id], want, all)
		}
	}
}
