package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// says is a rollout of a release to all clients.
func says(id string, rel release.Release) rollout.Spec {
	return rollout.Spec{ID: id, Product: "pump", Release: rel.Digest[:], Selection: rollout.Selection{All: true}, Assurance: device.Says, Waves: []rollout.Wave{{Deadline: 3600}}}
}

// A client judges nothing of what it is offered, so what changes after it was told is looked at at each poll: it is told to leave off, and what it was not offered yet it is not offered.
func TestAClientIsNotOfferedWhatADeviceWouldRefuse(t *testing.T) {
	for name, turns := range map[string]func(c *clients){
		"of other hardware": func(c *clients) {
			if _, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1", Hardware: "B"}); err != nil {
				t.Fatal(err)
			}
		},
		"closed":               func(c *clients) { c.closes(2, 5) },
		"withdrawn":            func(c *clients) { c.withdrawn(c.new) },
		"of one that is lost":  func(c *clients) { c.moves(device.Lose) },
		"of a suspected clone": func(c *clients) { c.moves(device.Suspect) },
		"of one at its end":    func(c *clients) { c.moves(device.Retire) },
		"older than it runs":   func(c *clients) { c.publish("1.2.0", c.old); c.saysVersion("1.2.0") },
		"over who knows what":  func(c *clients) { c.saysVersion("build-77") },
		"not over what it has": func(c *clients) { c.saysVersion("0.9.0") },
	} {
		t.Run(name, func(t *testing.T) {
			for _, told := range []bool{true, false} {
				c := newClients(t)
				c.new = c.published("1.1.5", func(spec *release.Spec) {
					spec.Hardware, spec.Over = []string{"A"}, []wire.VersionRange{{From: "1.0.0"}}
				})
				c.begin(says("r1", c.new))
				c.tick(time.Second)
				var o device.Offer
				if told {
					if o = c.offered(); o.Number == 0 || o.Cancel {
						t.Fatalf("before: %+v", o)
					}
				}
				turns(c)
				now := c.offered()
				if !told {
					if now.Number != 0 {
						t.Errorf("it is offered %+v", now)
					}
					continue
				}
				if !now.Cancel || now.Number != o.Number {
					t.Errorf("it is told %+v, and not to leave off %d", now, o.Number)
				}
				if again, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); err != nil || !again.Cancel {
					t.Errorf("by its number: %+v %v", again, err)
				}
				c.answers(o, device.GaveUp)
				if now = c.offered(); now.Number != 0 {
					t.Errorf("it left off, and is told %+v", now)
				}
			}
		})
	}
}

func (c *clients) moves(ev device.Event) {
	c.t.Helper()
	if _, err := c.devices.Move(c.t.Context(), access.Internal("t"), c.id, ev, nil, "x"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clients) withdrawn(rel release.Release) {
	c.t.Helper()
	if _, err := c.releases.Withdraw(c.t.Context(), person("rm"), rel.Digest, "bad"); err != nil {
		c.t.Fatal(err)
	}
}

// It goes back only where the approvers of what it says it runs allowed it.
func TestAClientGoesBackTheAllowedWay(t *testing.T) {
	for version, back := range map[string]bool{"1.1.0": true, "0.9.0": false, "1.2.0": false, "": false} {
		c := newClients(t)
		c.publish("1.2.0")
		c.begin(says("r1", c.new))
		c.tick(time.Second)
		c.answers(c.offered(), device.Succeeded)
		c.saysVersion("1.1.0")
		c.tick(time.Second)
		if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
			t.Fatal(err)
		}
		c.tick(time.Second)
		c.tick(time.Second)
		c.saysVersion(version)
		if o := c.offered(); (o.Number != 0) != back || back && (o.Act != wire.ActRollback || o.Cancel || o.Release.Version != "1.0.0") {
			t.Errorf("it says that it runs %q, and is told %+v", version, o)
		}
	}
}

// A client that says no version, or none that can be compared, is in no rollout: it might be newer.
func TestWhoSaysNoVersionIsLeftOut(t *testing.T) {
	for _, version := range []string{"", "v2.0.0", "2.0.0.1", "build-77", "2024-11"} {
		c := newClients(t)
		c.saysVersion(version)
		res, err := c.roll.svc.DryRun(t.Context(), person("op"), says("r1", c.new))
		if codeOf(err) != "rollout.empty" {
			t.Errorf("version %q: for %d, %v", version, len(res.Members), err)
		}
	}
}

// One that was told to leave off and does not is not offered the bad release again, and not kept from the next for ever.
func TestWhoKeepsOnIsOfferedNothingMoreOfIt(t *testing.T) {
	c := newClients(t)
	next := c.publish("1.2.0", c.old)
	o := c.brings("r1")
	if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
		t.Fatal(err)
	}
	c.tick(time.Second)
	off := c.offered()
	if !off.Cancel || off.Number != o.Number {
		t.Fatalf("it is told %+v", off)
	}
	c.answers(off, device.KeepsOn)
	c.answers(off, device.KeepsOn)
	c.begin(says("r2", next))
	for range 2 {
		c.tick(time.Minute)
		if now := c.offered(); now.Number != 0 {
			t.Fatalf("it keeps on, and is told %+v", now)
		}
		if again, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); err != nil || !again.Cancel {
			t.Fatalf("by its number: %+v %v", again, err)
		}
	}
	c.answers(o, device.Working)
	c.now = c.now.Add(23 * time.Hour)
	if now := c.offered(); now.Number != 0 {
		t.Fatalf("it keeps on for a day less an hour, and is told %+v", now)
	}
	c.now = c.now.Add(2 * time.Hour)
	now := c.offered()
	if _, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); codeOf(err) != "offer.ended" {
		t.Errorf("after a day: %+v %v", now, err)
	}
	if now.Number == o.Number {
		t.Errorf("after a day it is told %+v", now)
	}
	if err := c.devices.Answer(t.Context(), c.self(), c.id, device.Answer{Number: o.Number, Said: device.Succeeded}); codeOf(err) != "offer.ended" {
		t.Error(fmt.Errorf("too late: %w", err))
	}
}
