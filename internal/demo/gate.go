package demo

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// Who builds, and from what.
const (
	builderID = "https://ci.example-devices.example/1"
	sourceOf  = "git+https://git.example-devices.example/"
)

// gate puts a gate before releases: the next one is not proposed without provenance, and with it is.
func (d *demo) gate(ctx context.Context) error {
	d.say("\nThe gate: from now on a release says what it is made of and who built it, or it is not proposed")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := d.demand(ctx, key); err != nil {
		return err
	}
	spec, err := d.specOf(ctx, vBad, 2, v2)
	if err != nil {
		return err
	}
	err = insist(ctx, func() error { _, err := d.people["rita"].Propose(ctx, spec); return err })
	ok, saw := client.Code(err) == "supply.gate" && strings.Contains(err.Error(), "provenance.missing"), observed(err, "proposed")
	if ok {
		saw = "refused: there is no provenance"
	}
	if err := d.step(Step{
		Step: "release " + vBad + " without provenance", Expected: "refused by the supply gate", OK: ok, Observed: saw,
		Ledger: d.place(ctx, "control", "supply.decided", spec.ID),
	}); err != nil {
		return err
	}
	d.builder = key
	return nil
}

// demand says what is asked of releases, and brings what the gate looks things up in.
func (d *demo) demand(ctx context.Context, builder *ecdsa.PrivateKey) error {
	spki, err := wire.SPKIOf(builder.Public())
	if err != nil {
		return err
	}
	policy := supply.Policy{
		Mode: supply.Enforce, MaxUnknown: 100, // the demo's programs may be anybody's
		Builders: []supply.Builder{{ID: builderID, Keys: [][]byte{spki}, Sources: []string{sourceOf}}},
	}
	advisories := fmt.Sprintf(`{"id":"GO-2026-9999","modified":%q,"affected":[{"package":{"ecosystem":"Go","name":"example.com/elsewhere"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`,
		time.Now().UTC().Format(time.RFC3339))
	for _, do := range []func() error{
		func() error {
			_, err := d.people["admin"].RotateKey(ctx, keyring.Supply, "", "what the gate found is signed for others")
			return err
		},
		func() error {
			_, err := d.people["sam"].ImportAdvisories(ctx, "Go", false, strings.NewReader(advisories))
			return err
		},
		func() error { _, err := d.people["rita"].SetSupplyPolicy(ctx, productID, policy); return err },
	} {
		if err := insist(ctx, do, "access.four-eyes"); err != nil { // the policy was set, and its answer lost: another takes two
			return err
		}
	}
	return nil
}

// provenance is what a build says of what it made, signed by the builder.
func provenance(builder crypto.Signer, version string, image []byte, beside []part) ([]byte, error) {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	sum := sha256.Sum256(image)
	subjects := []subject{{"app", map[string]string{"sha256": hex.EncodeToString(sum[:])}}}
	for _, c := range beside {
		subjects = append(subjects, subject{c.Name, map[string]string{"sha256": hex.EncodeToString(c.built)}})
	}
	said, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "subject": subjects, "predicateType": "https://slsa.dev/provenance/v1",
		"predicate": map[string]any{
			"buildDefinition": map[string]any{"buildType": builderID + "/go", "resolvedDependencies": []map[string]string{{"uri": sourceOf + productID + "@" + version}}},
			"runDetails":      map[string]any{"builder": map[string]string{"id": builderID}},
		},
	})
	if err != nil {
		return nil, err
	}
	return statement.Seal(builder, "application/vnd.in-toto+json", said)
}

// proven adds the provenance of a build to its release.
func (d *demo) proven(ctx context.Context, spec *release.Spec, version string) error {
	if d.builder == nil {
		return nil
	}
	doc, err := provenance(d.builder, version, d.images[version], d.beside[version])
	if err != nil {
		return err
	}
	return insist(ctx, func() (err error) {
		spec.Provenance, err = d.people["rita"].Upload(ctx, productID, "provenance-"+version, false, bytes.NewReader(doc))
		return err
	})
}

// lateComer closes the bad release, while one device was away from before it came: it is not given it. The same waves are played over a fleet that would be too many here.
func (d *demo) lateComer(ctx context.Context) error {
	a := d.agents[2]
	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })...) // it is waited for
	a.run.stop(os.Interrupt)
	if err := d.badRelease(ctx); err != nil {
		return err
	}
	var r httpapi.ReleaseView
	err := insist(ctx, func() (err error) {
		r, err = d.people["rita"].CloseRelease(ctx, d.releases[vBad], "it is sick")
		return err
	}, "release.closed")
	if err := d.step(Step{
		Step: "release " + vBad, Expected: "closed: nobody is given it any more", OK: err == nil, Observed: observed(err, "closed, "+string(r.Status)),
		Ledger: d.place(ctx, "control", "release.closed", productID+"-"+vBad),
	}); err != nil {
		return err
	}
	if err := a.on(); err != nil {
		return err
	}
	ok, saw := d.waitWorks(ctx, a.id, v2)
	var told []httpapi.Outcome
	if err := insist(ctx, func() (err error) { told, err = d.people["olga"].DeviceCommands(ctx, a.id); return err }); err != nil {
		return err
	}
	if slices.ContainsFunc(told, func(o httpapi.Outcome) bool { return o.Release == d.releases[vBad] }) {
		ok, saw = false, "it was told to install what is closed"
	}
	if err := d.step(Step{Step: "a late comer", Device: a.id, Expected: "is not given it, and works on with " + v2, OK: ok, Observed: saw}); err != nil {
		return err
	}
	err = d.rollout(ctx, "update-3", vBad, v2, []rollout.Wave{{Soak: 1, Deadline: 60}})
	if err := d.step(Step{
		Step: "another rollout of " + vBad, Expected: "refused", OK: client.Code(err) == "rollout.release", Observed: observed(err, "it began"),
	}); err != nil {
		return err
	}
	d.setLive(append(d.powered(), a)...)
	return d.tenThousand(ctx)
}

// tenThousand plays a rollout that bricks three in a hundred over 10,000 devices that are not there, by the planner that decided above.
func (d *demo) tenThousand(ctx context.Context) error {
	out, err := output(exec.CommandContext(ctx, d.bin.hallmark, "simulate", "rollout", "--devices", "10000", "--brick", "3%", "--wave", "50,failures=3", "--wave", "10%,per-hour=200",
		"--wave", "rest,per-hour=2000", "--failures", "1%", "--deadline", "1h", "--json"))
	if err != nil {
		return err
	}
	var c struct {
		Phase         rollout.Phase
		Took          time.Duration
		Told, Bricked int
		Last          rollout.Counts
	}
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		return err
	}
	return d.step(Step{
		Step: "10,000 simulated devices, a release that bricks 3 %", Expected: "halted by itself and rolled back, long before 300 are bricked", OK: c.Phase == rollout.RolledBack && c.Bricked < 30,
		Observed: fmt.Sprintf("%s in %s: %d were told, %d are bricked, %d went back", c.Phase, c.Took, c.Told, c.Bricked, c.Last.Returned),
	})
}
