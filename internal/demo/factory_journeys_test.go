package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"github.com/hallmark-iot/hallmark/factory"
)

// saves has what the person saves in the browser end in a directory, which it gives.
func (p *person) saves() string {
	p.t.Helper()
	dir := p.t.TempDir()
	p.do("choose where files are saved", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
			Behavior: browser.SetDownloadBehaviorBehaviorAllow, BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID, DownloadPath: dir,
		})
		return err
	}))
	return dir
}

// saved waits for a file of this name, whole.
func (p *person) saved(dir, name string) []byte {
	p.t.Helper()
	var data []byte
	ok, saw := wait(p.ctx, patience, func() (bool, string) {
		left, err := os.ReadDir(dir)
		if err != nil {
			return false, err.Error()
		}
		names := []string{}
		for _, f := range left {
			names = append(names, f.Name())
			if strings.HasPrefix(f.Name(), name) && !strings.HasSuffix(f.Name(), ".crdownload") {
				data, err = os.ReadFile(filepath.Join(dir, f.Name()))
				return err == nil && len(data) > 0, observed(err, "empty")
			}
		}
		return false, strings.Join(names, ", ")
	})
	if !ok {
		p.t.Fatalf("%s was not saved: %s", name, saw)
	}
	return data
}

// chooses gives a file to the dialog's field for one.
func (p *person) chooses(path string) {
	p.t.Helper()
	p.do("choose "+path, chromedp.SetUploadFiles(chromedp.CSS(`#confirm-fields input[type="file"]`), []string{path}))
}

// master builds one of version 1, as an approver does, the first time that it is asked for, and gives its file and its documents. The SBOM is the release's.
func (w *world) master(t *testing.T) (file, sbom, provenance string) {
	t.Helper()
	dir := filepath.Join(w.dir, "build")
	at := func(name string) string { return filepath.Join(dir, name) }
	if _, err := os.Stat(at("sensor-1.hmm")); err == nil {
		return at("sensor-1.hmm"), at("sbom.json"), at("build.json")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	bill, err := contents(v1, w.images[v1], w.beside[v1])
	if err != nil {
		t.Fatal(err)
	}
	sbom, provenance = write("sbom.json", string(bill)), write("build.json", `{"_type":"https://in-toto.io/Statement/v1"}`)
	w.hallmark(t, "ada", "key", "rotate", "desk", "--reason", "masters are sealed to it")
	w.hallmark(t, "frank", "desk", "instance", "--out", at("acme.json"))
	data, err := os.ReadFile(at("acme.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := factory.DecodeDeskFile(data)
	if err != nil {
		t.Fatal(err)
	}
	w.hallmark(t, "rita", "release", "export", productID+"@"+v1, "--out", at("v1.release"))
	w.hallmark(t, "rita", "bundle", "show", productID, "--out", at("bundle"))
	w.hallmark(t, "alice", "master", "build", "--product", productID, "--hardware", hardware, "--revision", "1", "--release", at("v1.release"), "--bundle", at("bundle"),
		"--file", "app="+write("app", string(w.images[v1])), "--sbom", sbom, "--provenance", provenance, "--to", at("acme.json")+"="+f.Fingerprint(),
		"--server", strings.Replace(w.devURL, "127.0.0.1", "localhost", 1), "--slot-size", "67108864", "--key", filepath.Join(w.layout.Offline(), "approver-alice.key"), "--out", at("sensor-1.hmm"))
	return at("sensor-1.hmm"), sbom, provenance
}

// orderedOfAMaster has a device made of a master, all of it in the browser but what the station does, and gives the order up when the station is gone.
func orderedOfAMaster(t *testing.T, w *world) {
	file, sbom, provenance := w.master(t)
	frank := w.signedIn(t, "frank")
	frank.visit("/masters")
	frank.press("Take in a master")
	frank.asked("Take in a master that orders can be made of")
	frank.chooses(sbom)
	frank.press("Take in a master")
	frank.sees("not in deterministic encoding")
	frank.press("Cancel")
	frank.press("Take in a master")
	frank.chooses(file)
	frank.press("Take in a master")
	digest := frank.once("Digest")
	frank.press("Close")
	frank.closed()
	frank.sees("may be placed", "not here")
	frank.press("sensor " + hardware + ", revision 1")
	frank.at("/masters/" + digest)

	frank.notOffered("Give its SBOM") // it came with the release
	frank.press("Give its provenance")
	frank.chooses(sbom)
	frank.press("Give its provenance")
	frank.sees("this is not the provenance that the master names")
	frank.press("Cancel")
	frank.press("Give its provenance")
	frank.chooses(provenance)
	frank.press("Give its provenance")
	frank.closed()
	frank.until("it to be given", `!named("Give its provenance")`)
	dir := frank.saves()
	frank.press("Save")
	want, err := os.ReadFile(sbom)
	if err != nil {
		t.Fatal(err)
	}
	if got := frank.saved(dir, "sbom-"); !bytes.Equal(got, want) {
		t.Errorf("the SBOM came back as %q", got)
	}

	w.stale(t, "frank")
	frank.press("Have devices made")
	frank.asked("Have devices made: sensor " + v1)
	frank.fill("How many, at most", "2")
	frank.chooses(filepath.Join(w.dir, "station.hmd"))
	frank.fill("The station's fingerprint", w.station.fingerprint)
	frank.fill("Its name", "from-the-page")
	frank.fill("The devices' keys", "may be made by the station")
	frank.picture("order-form", "light")
	frank.press("Have devices made")
	frank.sees("sign in again") // it takes a new proof of who orders
	w.fresh(t, "frank")
	frank.press("Have devices made")
	if id := frank.once("Order"); id != "from-the-page" {
		t.Errorf("the order is %q", id)
	}
	frank.press("order.hmo")
	order := filepath.Join(t.TempDir(), "order.hmo")
	if err := os.WriteFile(order, frank.saved(dir, "order"), 0o600); err != nil {
		t.Fatal(err)
	}
	frank.press("Close")
	o, err := w.people["frank"].Order(t.Context(), "from-the-page")
	if err != nil || o.Quota != 2 || o.Keys != "station" || o.Master == nil || o.Master.Digest != digest {
		t.Errorf("the API says: %+v, %v", o, err)
	}
	w.told(t, "control", "order.created", "from-the-page", "person:frank")
	w.madeAndBurnt(t, order)

	frank.visit("/orders/from-the-page")
	frank.sees("the device or the station", "revision 1")
	frank.press("Abandon the order")
	frank.asked("Abandon this order")
	frank.typesWhatIsAsked()
	frank.fill("Reason, for the ledger", "the centre burnt down")
	frank.press("Abandon the order")
	frank.sees("One person may not do this alone.")
	frank.fill("Reason, for the ledger and for the second person", "the centre burnt down")
	frank.press("Propose it")
	frank.at("/proposals/")
	where := look[string](frank, "location.pathname")

	gina := w.signedIn(t, "gina")
	gina.visit(where)
	gina.sees("the centre burnt down", "Just this would be done")
	gina.press("Approve")
	gina.asked("Approve this proposal")
	gina.fill("Reason, for the ledger", "it was in the paper")
	gina.press("Approve")
	gina.closed()
	frank.sees("Approved by person:gina")
	frank.press("Do it")
	frank.press("Do it")
	frank.sees("Done: person:gina agreed.")
	frank.visit("/orders/from-the-page")
	frank.sees("abandoned")
	frank.notOffered("Abandon the order")
	if o, err := w.people["frank"].Order(t.Context(), "from-the-page"); err != nil || o.State != factory.Abandoned {
		t.Errorf("the API says: %s, %v", o.State, err)
	}
	w.told(t, "control", "order.abandoned", "from-the-page", "person:frank")
}

// madeAndBurnt has a station of its own make one of the order's devices, and never be heard of again.
func (w *world) madeAndBurnt(t *testing.T, order string) {
	t.Helper()
	records := filepath.Join(t.TempDir(), "records.hmr")
	for _, args := range [][]string{
		{"import", order},
		{"run", "from-the-page", "-n", "1", "--devices-dir", t.TempDir(), "--device-exec", w.bin.agent + " factory --dir {dir} --socket {socket} --payload-bytes 67108864 --hardware " + hardware},
		{"export", "from-the-page", "-o", records},
	} {
		if _, err := w.atStation(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(records)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.people["frank"].ImportRecords(t.Context(), "from-the-page", bytes.NewReader(data), int64(len(data))); err != nil || r.Accepted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// fresh makes every session of somebody one that was just begun.
func (w *world) fresh(t *testing.T, name string) {
	t.Helper()
	if err := w.past("UPDATE credential SET verified = $1 WHERE caller = $2 AND used_as = 'session'", time.Now().UnixMilli(), "person:"+name); err != nil {
		t.Fatal(err)
	}
}

// takenIn is the digest of a master that was given to the instance.
func (w *world) takenIn(t *testing.T) string {
	t.Helper()
	file, _, _ := w.master(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.people["frank"].TakeMaster(t.Context(), productID, data[:min(len(data), 300_000)])
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}
