package demo

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/rollout"
)

// world is a maker with a fleet that has lived, in which something is wrong, and a browser to look at it with.
type world struct {
	*demo
	browser                  context.Context //nolint:containedctx // chromedp keeps the browser in it
	db                       *store.DB       // to put the clock on: what would take hours of waiting is written into the past
	tokens                   map[string]string
	voucher, proposal, owner string // the pages of one, once there is one
	decision                 string // the page of what a supply gate refused
	link                     string // that signs rita in, once: who has only a token adds no passkey

	well, altered, silent *device
}

// console is its address by the name that passkeys are bound to.
func (w *world) console() string {
	return regexp.MustCompile(`127\.0\.0\.1`).ReplaceAllString(w.demo.console, "localhost")
}

// live plays the first chapters, and then has one device altered, and one fall silent.
func live(t *testing.T) *world {
	t.Helper()
	w := &world{browser: chromium(t), tokens: map[string]string{}}
	w.demo = plan(Options{Devices: 6, Out: io.Discard, programs: programs(t)})
	w.dir = t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		w.dir = keep
	}
	t.Cleanup(func() {
		w.stopAll()
		if w.db != nil {
			_ = w.db.Close() // nothing is left to be written
		}
	})
	ctx := t.Context()
	for _, chapter := range []func(context.Context) error{w.build, w.instance, w.everybody, w.firstRelease, w.produce, w.field, w.silence, w.quickUpdate, w.trouble} {
		if err := chapter(ctx); err != nil {
			logs, _ := os.ReadFile(filepath.Join(w.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	return w
}

// everybody gets a token to sign in with, while one administrator may still give power alone; ada is the second one, and may do all.
func (w *world) everybody(ctx context.Context) (err error) {
	for _, name := range []string{"berta", "carla"} { // each is the people of an owner
		o, err := w.people["sam"].CreateOwner(ctx, name+" Ltd")
		if err != nil {
			return err
		}
		w.owner = "/owners/" + o.ID
		if w.tokens[name], err = w.people["admin"].Token(ctx, httpapi.TokenSpec{
			Caller: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Operator}, Owner: o.ID, Use: signin.UseToken, Seconds: 24 * 3600,
		}); err != nil {
			return err
		}
		w.people[name] = w.people["admin"].As(w.tokens[name])
	}
	people := cast()
	people["nora"], people["eve"] = []access.Role{access.Auditor}, []access.Role{access.Viewer}
	people["gina"] = []access.Role{access.Factory, access.Viewer}
	for _, name := range append(slices.Sorted(maps.Keys(people)), "ada") {
		roles := people[name]
		if name == "ada" {
			roles = access.Roles()
			if w.link, err = w.linkFor(ctx, "rita", people["rita"]); err != nil {
				return err
			}
		}
		if w.tokens[name], err = w.people["admin"].Token(ctx, httpapi.TokenSpec{
			Caller: "person:" + name, Kind: access.Person, Roles: roles, Use: signin.UseToken, Seconds: 24 * 3600,
		}); err != nil {
			return err
		}
		w.people[name] = w.people["admin"].As(w.tokens[name])
	}
	w.db, err = sqlite.Open(ctx, w.layout.Database())
	return err
}

func (w *world) linkFor(ctx context.Context, name string, roles []access.Role) (string, error) {
	once, err := w.people["admin"].Token(ctx, httpapi.TokenSpec{
		Caller: "person:" + name, Kind: access.Person, Roles: roles, Use: signin.UseOnce, Seconds: 24 * 3600,
	})
	return "/login?once=" + once, err
}

// silence takes the power from one device.
func (w *world) silence(context.Context) error {
	w.well, w.altered, w.silent = w.agents[2], w.agents[1], w.agents[5]
	w.silent.run.stop(os.Kill)
	return nil
}

// quickUpdate brings everybody else to version 2.
func (w *world) quickUpdate(ctx context.Context) error {
	if err := w.publish(ctx, v2, 2); err != nil {
		return err
	}
	digest, err := hex.DecodeString(w.releases[v2])
	if err != nil {
		return err
	}
	spec := rollout.Spec{ID: "update-1", Product: productID, Release: digest, Waves: []rollout.Wave{{Size: 1, Soak: 1, Deadline: 60}, {Soak: 1, Deadline: 60}}, Reason: "faster"}
	for _, a := range w.agents {
		if a != w.silent {
			spec.Selection.IDs = append(spec.Selection.IDs, a.id)
		}
	}
	if _, err := w.people["olga"].CreateRollout(ctx, spec); err != nil {
		return err
	}
	if _, err := w.people["olga"].StartRollout(ctx, spec.ID); err != nil {
		return err
	}
	ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
		r, err := w.people["olga"].Rollout(ctx, spec.ID)
		return err == nil && r.Rollout.Phase == rollout.Completed, observed(err, string(r.Rollout.Phase)+" "+r.Rollout.Reason)
	})
	if !ok {
		return fmt.Errorf("the update: %s", saw)
	}
	return nil
}

// trouble alters the program of one device, which loses its power in quarantine.
func (w *world) trouble(ctx context.Context) error {
	if err := w.altered.alter(w.images[v2]); err != nil {
		return err
	}
	if ok, saw := wait(ctx, patience, func() (bool, string) {
		v, err := w.seen(ctx, w.altered.id)
		return err == nil && v.Device.State == "quarantined", tell(v, err)
	}); !ok {
		return fmt.Errorf("the altered device: %s", saw)
	}
	w.altered.run.stop(os.Kill)
	return w.forget()
}

// forget makes the silent device one that has not been heard of for half a day.
func (w *world) forget() error {
	return w.past("UPDATE device SET last_seen = $1, since = $1 WHERE id = $2", store.Millis(time.Now().Add(-11*time.Hour)), w.silent.id)
}

// missed waits until the server misses the silent device: it looks for silence every half minute.
func (w *world) missed(t *testing.T) {
	t.Helper()
	if ok, saw := wait(t.Context(), 60*time.Second, func() (bool, string) {
		if err := w.forget(); err != nil { // again: what the server had heard last may have been written meanwhile
			return false, err.Error()
		}
		v, err := w.seen(t.Context(), w.silent.id)
		return err == nil && v.Device.Findings > 0, tell(v, err)
	}); !ok {
		t.Fatalf("the silent device: no finding: %s", saw)
	}
}

// past writes what would have been long ago.
func (w *world) past(statement string, args ...any) error {
	return w.db.Write(context.Background(), func(tx *store.Tx) error { _, err := tx.Exec(statement, args...); return err })
}

// stale makes every session of somebody one that was begun long ago.
func (w *world) stale(t *testing.T, name string) {
	t.Helper()
	if err := w.past("UPDATE credential SET verified = $1 WHERE caller = $2 AND used_as = 'session'", store.Millis(time.Now().Add(-signin.StepUp)), "person:"+name); err != nil {
		t.Fatal(err)
	}
}

// Journeys of people through the console, in a real browser, over a fleet of real devices: each asserts what the person sees, and then
// what the API or the ledger says of it.
func TestJourneys(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	w := live(t)
	for _, j := range []struct {
		name string
		play func(*testing.T, *world)
	}{
		{"the first administrator gets a passkey, and needs nothing else", firstAdministrator},
		{"a newcomer finds what is wrong, why, and proves it", newcomer},
		{"a device is quarantined and released, seen live", quarantine},
		{"a page is read without script, by keyboard, in another zone", otherWays},
		{"two people vouch for a device that lost its keys, and the voucher is seen once", lostItsKeys},
		{"a device is sent to another instance by two, and kept after all", sentAwayAndKept},
		{"a bad lot is written down, and its devices are found", badLot},
		{"what happens while a page opens is on it", liveFromTheStart},
		{"what the gate refuses says why, and less is asked by two", gateRefuses},
		{"every page is for everybody", noBarriers},
		{"a release takes four eyes and a new proof of who publishes it", fourEyesRelease},
		{"a rollout goes through its waves, paused and resumed", liveRollout},
		{"power is given by two administrators", powerTakesTwo},
		{"an order adds up, and is closed", orderCloses},
		{"a device is ordered of a master, and its order given up by two", orderedOfAMaster},
		{"data is read by whom it was granted, until it is not", dataGrant},
		{"an owner hands a device on, and has the code for the next", soldFromThePage},
		{"an owner whose device defends her hands a device back", handedOnWithAKey},
		{"a member who is ended is out at the next click", memberEnds},
		{"anybody asks whether a device is genuine", anybodyAsks},
		{"an authority is asked for, and what is no grant is not installed", authorityAsked},
		{"a list of another maker's devices is tried, and then taken", otherMakers},
	} {
		t.Run(j.name, func(t *testing.T) { j.play(t, w) })
	}
}
